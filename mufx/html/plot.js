const plotView = () => [];
