"""Instances of the clustering by margins: masks that may share points."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from probemb_lib.gaussian import GaussianEmbedding
from probemb_lib.instances import Instances


@dataclass(frozen=True, repr=False)
class MarginInstances(Instances):
    """Instances that may share points: ``label`` is the last instance of a point, :meth:`masks` are whole.

    A later instance overwrites earlier ones in ``label``, and may leave nothing of one. What Neven et al. evaluate is
    the masks as they were found.

    Attributes:
        member: (S,) int64, rows of the points of each instance, instance after instance.
        member_ptr: (K+1,) int64, instance k owns ``member[member_ptr[k]:member_ptr[k+1]]``. S < 2 N, since more than
            half of each instance was in none before.
    """

    member: Tensor
    member_ptr: Tensor

    @property
    def size(self) -> Tensor:
        """(K,) int64, points of each mask as it was found, those of several masks in each of them."""
        return self.member_ptr.diff()

    def masks(self) -> Tensor:
        """(K, N) bool, one mask an instance, as it was found; two masks may share points."""
        mask = torch.zeros((len(self), self.label.shape[0]), dtype=torch.bool, device=self.label.device)
        mask[self._of_member(), self.member] = True
        return mask

    def _log_similarity(self, points: GaussianEmbedding, own: GaussianEmbedding) -> Tensor:
        """ln φ = −½ Σ_d Δ_d² / σ_d², by the margins of the instances."""
        return -0.5 * ((points.mean - own.mean) / own.std).square().sum(1)

    def keep(self, mask: Tensor) -> MarginInstances:
        """Only some of the instances, with their whole masks; see :meth:`Instances.keep`.

        The label of a point is the last of the kept instances that have it.
        """
        found = super().keep(mask)
        if found is self:
            return self
        kept = mask[self._of_member()]
        member, ptr = self.member[kept], pad(self.size[mask].cumsum(0), (1, 0))
        found = replace(found, member=member, member_ptr=ptr)
        label = torch.full_like(self.label, -1).scatter_reduce(0, member, found._of_member(), "amax")
        return replace(found, label=label)

    def split(self, num_clouds: int | None = None) -> list[Instances]:
        """One MarginInstances a cloud; see :meth:`Instances.split`."""
        clouds: list[Instances] = []
        for b, cloud in enumerate(super().split(num_clouds)):
            first = int((self.batch < b).sum())  # rows of a cloud lie together, in order of the clouds
            ptr = self.member_ptr[first : first + len(cloud) + 1]
            row = torch.cumsum(self.point_batch == b, 0) - 1
            clouds.append(
                MarginInstances(
                    **vars(cloud), member=row[self.member[int(ptr[0]) : int(ptr[-1])]], member_ptr=ptr - ptr[0]
                )
            )
        return clouds

    def _of_member(self) -> Tensor:
        """(S,) the instance of each row of ``member``."""
        return torch.arange(len(self), device=self.label.device).repeat_interleave(self.size)
