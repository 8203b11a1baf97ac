"""Operations that torch dispatches, counted: on a GPU each is a launch, and takes longer to ask for than to do."""

from collections import Counter
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode


class Operations(TorchDispatchMode):
    """Counts what is dispatched inside ``with``, without views, which launch nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        views = (value.alias_info is not None and not value.alias_info.is_write for value in function._schema.returns)
        if not any(views):
            self.counts[str(function)] += 1
        return function(*args, **(kwargs or {}))

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def read_backs(self) -> int:
        """Operations that wait for the device: values asked for one by one, and sizes that values decide."""
        waiting = ("_local_scalar_dense", "nonzero", "masked_select", "bincount", "unique", "_unique2", "equal")
        return sum(self.counts[name] for name in self.counts if name.split(".")[1] in waiting)
