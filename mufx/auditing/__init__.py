"""The static audit: how far a model and its optimizer are from μP, without training."""
