"""`LocalAttention`: Eq. 4 of arXiv:2112.12786 assembled from one level of each room."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from paradigms import kernels
from paradigms.aggregation import AGGREGATIONS
from paradigms.aggregation.level import Aggregation
from paradigms.config import AttentionConfig
from paradigms.facts import Size
from paradigms.functional import Outside, make_neighbors
from paradigms.neighborhood import NEIGHBORHOODS, Neighborhood
from paradigms.normalization import NORMALIZATIONS, Normalization
from paradigms.parameterization import PARAMETERIZATIONS
from paradigms.parameterization.level import Parameterization
from paradigms.pointwise import choose_linear
from paradigms.presets import to_config
from paradigms.projection import PROJECTIONS, Projections
from paradigms.requirements import require_width


class LocalAttention(nn.Module):
    """f_i = Σ_{j∈Φ} Norm_j(logits_ij) v_j, between a value projection and an output projection.

    Its parts are objects: `parameterization` computes the logits, `normalization` turns them into weights,
    `neighborhood` defines which keys a query sees, and `aggregation` combines weights and values. `projections` has the
    layers for values and output.

    Shape:
        (batch, height, width, dim) to the same.

    Raises:
        ValueError: `num_heads` does not divide `dim`, or `backend` does not support the parts.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        parameterization: Parameterization,
        normalization: Normalization,
        neighborhood: Neighborhood,
        aggregation: Aggregation,
        projections: Projections,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        if num_heads < 1 or dim % num_heads:
            raise ValueError(f"num_heads must divide dim, got {dim=}, {num_heads=}")
        asked = neighborhood.geometry, normalization, aggregation.kind, parameterization.scores
        kernels.choose_kernel(*asked, backend=backend)
        self.num_heads = num_heads
        self.parameterization = parameterization
        self.normalization = normalization
        self.neighborhood = neighborhood
        self.aggregation = aggregation
        self.input, self.v, self.proj = projections
        self.attn_drop = attn_drop
        self.proj_drop = nn.Dropout(proj_drop)
        self.backend = backend

    def forward(self, x: Float[Tensor, "batch height width dim"]) -> Float[Tensor, "batch height width dim"]:
        """Attend to the neighborhood of every pixel."""
        x = self.input(x)
        v = self.aggregation.split_heads(self.v(x), self.num_heads)  # (B, H, W, heads, head_dim)
        y = kernels.attend(
            self.parameterization(x),
            v,
            self.neighborhood.geometry,
            self.normalization,
            self.aggregation(x),
            outside=self._outside(),
            dropout_p=self.attn_drop if self.training else 0.0,
            backend=self.backend,
        )
        return self.proj_drop(self.proj(self.aggregation.join_heads(y)))  # type: ignore[no-any-return]

    def __prepare_scriptable__(self) -> "LocalAttention":
        """Refuse `torch.jit.script`, which cannot compile the choice between kernels."""
        raise RuntimeError("torch.jit.script does not support LocalAttention; use torch.export or torch.jit.trace")

    @property
    def is_global(self) -> bool:
        """Whether the output depends on the whole map, however small the neighborhood is."""
        return self.parameterization.is_global or self.aggregation.is_global

    @property
    def _value_bias(self) -> Float[Tensor, "dim"] | None:
        """The value of a pixel whose input is zero; None if it is zero."""
        return getattr(self.v, "bias", None)

    def _outside(self) -> Outside:
        """Keys and values outside the map: under the border `project` the projections of a zero input, else zeros."""
        if self.neighborhood.geometry.border != "project":
            return Outside(None, None)
        bias = self._value_bias
        v = None if bias is None else self.aggregation.split_heads(bias, self.num_heads)
        return Outside(self.parameterization.project_zero_key(), v)

    def invariances(self, height: int, width: int) -> dict[str, Bool[Tensor, "..."]]:
        """Entries of parameters that cannot change the output on a map of this size: their gradient is zero.

        These are the key bias, if the normalization ignores constants, every counted tap has a key and no table is
        multiplied with keys; the value bias, if the weights sum to zero; and table entries of offsets that do not occur
        on the map, or occur only where the other factor is zero.
        """
        geometry = self.neighborhood.geometry
        index, valid, offset = make_neighbors(geometry, height, width)
        zero_taps = geometry.border == "zero" and bool((valid & (index == height * width)).any())
        found: dict[str, Tensor] = {}
        if self.normalization.ignores_constant and not zero_taps:
            for name in self.parameterization.constant_parameters():
                found[f"parameterization.{name}"] = torch.tensor(True)
        unfiltered = self.aggregation.kind == "weighted_sum"
        if self.normalization.weight_sum == 0 and unfiltered and not zero_taps and self._value_bias is not None:
            found["v.bias"] = torch.tensor(True)
        carries_something = valid if self._outside().v is not None else valid & (index < height * width)
        for room in ("parameterization", "aggregation"):
            for name, table in getattr(self, room).position_tables().items():
                hidden = torch.ones(geometry.num_offsets, dtype=torch.bool)
                hidden[offset[carries_something if table.weighs_neighbor else valid]] = False
                found[f"{room}.{name}.weight"] = hidden if table.weight.ndim == 2 else hidden[:, None]
        return found


def build_attention(
    config: AttentionConfig | str,
    *,
    dim: int,
    num_heads: int,
    window_size: Size | None = None,
    shift_size: Size | None = None,
    qkv_bias: bool = True,
    attn_drop: float = 0.0,
    proj_drop: float = 0.0,
) -> LocalAttention:
    """Build the operator that a config, or a preset by its name, describes.

    Args:
        config: a point of Eq. 4's space or a name of `paradigms.PRESETS`.
        dim: channels.
        num_heads: heads; divides `dim`.
        window_size: replaces that of the config, if a backbone has fitted it to the map.
        shift_size: replaces that of the config, if a backbone alternates shifts.
        qkv_bias: whether the query, key and value projections have a bias.
        attn_drop: probability of dropping a weight.
        proj_drop: probability of dropping an output channel.

    Raises:
        ValueError: an unknown preset, or an impossible combination.
    """
    config = to_config(config)
    if window_size is not None:
        config = config.replace(window_size=window_size, shift_size=None)
    if shift_size is not None:
        config = config.replace(shift_size=shift_size)
    require_width(config, dim=dim, num_heads=num_heads)
    neighborhood = NEIGHBORHOODS[config.neighborhood].from_config(config)
    geometry = neighborhood.geometry
    parameterization = PARAMETERIZATIONS[config.parameterization[0]]
    return LocalAttention(
        dim,
        num_heads,
        parameterization=parameterization.from_config(config, dim, num_heads, geometry=geometry, qkv_bias=qkv_bias),
        normalization=NORMALIZATIONS[config.normalization].from_config(config),
        neighborhood=neighborhood,
        aggregation=AGGREGATIONS[config.aggregation].from_config(config, dim, num_heads, geometry.num_offsets),
        projections=PROJECTIONS[config.projections](dim, qkv_bias, choose_linear(config)),
        attn_drop=attn_drop,
        proj_drop=proj_drop,
        backend=config.backend,
    )
