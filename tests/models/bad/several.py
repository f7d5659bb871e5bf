"""Two models, neither of which builds the other."""

from torch import Tensor, nn


class First(nn.Module):
    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.layer = nn.Linear(4, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class Second(nn.Module):
    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.layer = nn.Linear(4, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)
