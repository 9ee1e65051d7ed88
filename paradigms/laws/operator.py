"""Laws of whole operators."""

import torch
from torch import Tensor, nn

from paradigms.attention import LocalAttention
from paradigms.config import AttentionConfig, make_config
from paradigms.functional import Terms, make_neighbors
from paradigms.laws.specimen import DIM, HEIGHT, WIDTH, LawBroken, make_input, make_operator, require

PARAMETER_KINDS = ("matrix", "table", "scalar")
"""The kinds of parameters that a module declares: a matrix of a product, a table over offsets, or factors."""


def keeps_shape_and_dtype(config: AttentionConfig) -> None:
    """The output is a map like the input, in float64 and in float32."""
    operator, x = make_operator(config), make_input()
    for dtype in (torch.float64, torch.float32):
        y = operator.to(dtype)(x.to(dtype))
        require(y.shape == x.shape, f"shape {tuple(x.shape)} became {tuple(y.shape)}")
        require(y.dtype == dtype, f"{dtype} became {y.dtype}")


def trains_every_parameter(config: AttentionConfig) -> None:
    """Every parameter gets a finite gradient, which is zero exactly at the entries that are declared invariant."""
    operator = make_operator(config)
    weight = torch.randn(HEIGHT, WIDTH, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    (operator(make_input()) * weight).sum().backward()
    invariant = operator.invariances(HEIGHT, WIDTH)
    for name, parameter in operator.named_parameters():
        gradient = parameter.grad
        if gradient is None:
            raise LawBroken(f"{name} gets no gradient")
        require(gradient.isfinite().all(), f"the gradient of {name} is not finite")
        expected_zero = invariant.get(name, torch.tensor(False)).expand_as(gradient)
        is_zero = gradient.abs() < 1e-11 * max(1.0, float(gradient.abs().max()))
        require(is_zero[expected_zero].all(), f"{name} is declared invariant and gets a gradient")
        require(~is_zero[~expected_zero].any(), f"{name} gets no gradient and is not declared invariant")


def declares_its_parameters(config: AttentionConfig) -> None:
    """A parameter with two or more axes belongs to a layer of torch, or is declared as matrix, table or scalar.

    Optimizers of matrices and weight decay depend on this.
    """
    for path, module in make_operator(config).named_modules():
        kinds = getattr(module, "parameter_kinds", {})
        own = dict(module.named_parameters(recurse=False))
        strange = sorted({str(kind) for kind in kinds.values()} - {*PARAMETER_KINDS})
        require(
            not strange,
            f"parameter_kinds of {path or 'the operator'} has {strange}, known: {', '.join(PARAMETER_KINDS)}",
        )
        absent = sorted(set(kinds) - set(own))
        require(
            not absent, f"parameter_kinds of {path or 'the operator'} names {absent}, of which it has no parameters"
        )
        if isinstance(module, nn.Linear | nn.modules.conv._ConvNd) or getattr(module, "is_position_table", False):
            continue
        unknown = [name for name, parameter in own.items() if parameter.ndim > 1 and name not in kinds]
        require(
            not unknown,
            f"{f'{path}.'.lstrip('.')}{next(iter(unknown), '')} is not declared: its module states in parameter_kinds, "
            f"by name, whether it is a {', '.join(PARAMETER_KINDS)}",
        )


def declares_the_key_of_a_zero_input(config: AttentionConfig) -> None:
    """`project_zero_key`, the key of taps outside the map under `project`, is the key of a pixel that is zero."""
    operator = make_operator(config)
    declared = operator.parameterization.project_zero_key()
    scores = operator.parameterization(torch.zeros_like(make_input()))
    if not isinstance(scores, Terms) or scores.k is None:
        require(declared is None, "project_zero_key is declared, but the parameterization makes no key")
        return
    key = torch.zeros_like(scores.k[0, 0, 0]) if declared is None else declared
    require(
        key.shape == scores.k.shape[-2:],
        f"project_zero_key has shape {tuple(key.shape)}, a key {tuple(scores.k.shape[-2:])}",
    )
    error = float((scores.k - key).detach().abs().max())
    require(error <= 1e-12, f"project_zero_key is off the key of a pixel that is zero by {error:.1e}")


def _find_reached(operator: LocalAttention, x: Tensor) -> Tensor:
    """[i, j]: whether the output at pixel i depends on the input at pixel j."""
    num_pixels = x.shape[1] * x.shape[2]
    image = x[:1].expand(num_pixels, -1, -1, -1)
    change = torch.eye(num_pixels, dtype=x.dtype).view(num_pixels, *x.shape[1:3], 1)
    difference = operator(image + change) - operator(image)  # entry j: the map changed at pixel j alone
    return difference.reshape(num_pixels, num_pixels, -1).abs().amax(-1).T > 1e-12  # type: ignore[no-any-return]


def depends_on_its_neighborhood_alone(config: AttentionConfig, size: tuple[int, int] = (HEIGHT, WIDTH)) -> None:
    """A query depends exactly on itself and the keys that its neighborhood declares, or is declared global."""
    operator, num_pixels = make_operator(config), size[0] * size[1]
    index, valid, _ = make_neighbors(operator.neighborhood.geometry, *size)
    declared = torch.zeros(num_pixels, num_pixels + 1, dtype=torch.bool)
    declared.scatter_(1, index.where(valid, torch.tensor(num_pixels)), True)
    declared = declared[:, :num_pixels] | torch.eye(num_pixels, dtype=torch.bool) | operator.is_global
    wrong = (_find_reached(operator, make_input(*size)) != declared).nonzero().tolist()
    if wrong:
        query, key = wrong[0]
        reach = "does not reach" if declared[query, key] else "reaches, undeclared,"
        raise LawBroken(f"on a map of {size} query {query} {reach} pixel {key}, and {len(wrong) - 1} more like this")


def depends_on_its_neighborhood_on_a_small_map(config: AttentionConfig) -> None:
    """The same on a map that is smaller than the kernel."""
    depends_on_its_neighborhood_alone(config, (3, 2))


def moves_with_its_input(config: AttentionConfig) -> None:
    """Away from the border, moving the input by the declared period moves the output."""
    operator = make_operator(config)
    rows, columns = operator.neighborhood.period
    geometry = operator.neighborhood.geometry
    margin = [2 * size * dilation for size, dilation in zip(geometry.kernel_size, geometry.dilation, strict=True)]
    height, width = (4 * step // size * size for step, size in zip(margin, (rows, columns), strict=True))
    x = make_input(height, width)
    moved = operator(x.roll((rows, columns), dims=(1, 2)))
    expected = operator(x).roll((rows, columns), dims=(1, 2))
    inner = (slice(None), slice(margin[0], height - margin[0]), slice(margin[1], width - margin[1]))
    assert expected[inner].numel()
    same = torch.allclose(moved[inner], expected[inner], rtol=1e-10, atol=1e-12)
    require(same, f"moving the input by the period {(rows, columns)} changes the output")


def has_the_gradients_of_finite_differences(config: AttentionConfig, backend: str = "reference") -> None:
    """Gradients of the input and of every parameter equal finite differences, in float64 on a non-square map."""
    shift_size = (1, 0) if config.shift_size else None
    size, sizes = config.hadamard_size and 1, {"window_size": (2, 2), "kernel_size": (5, 1), "chunk_size": (2, 1)}
    small = make_config({**sizes, "shift_size": shift_size, "hadamard_size": size}, base=config)
    operator = make_operator(small, dim=4, num_heads=2)
    x = make_input(5, 2, 4)[:1].requires_grad_()
    names = [name for name, _ in operator.named_parameters()]

    def call(image: Tensor, *parameters: Tensor) -> Tensor:
        output: Tensor = torch.func.functional_call(operator, dict(zip(names, parameters, strict=True)), (image,))
        return output

    operator.backend = backend
    same = torch.autograd.gradcheck(call, (x, *operator.parameters()), fast_mode=True, raise_exception=False)
    require(same, f"the gradients that {backend} computes are not those of finite differences")


def equals_the_reference(config: AttentionConfig, size: tuple[int, int] = (9, 5)) -> None:
    """`auto` equals the reference in the output and every gradient, and raises an error where the reference does."""
    operator, x = make_operator(config), make_input(*size)
    counted = make_neighbors(operator.neighborhood.geometry, *size).valid.sum(-1)
    least = getattr(operator.normalization, "minimum_taps", 1)
    if counted.min() < least:
        for backend in ("auto", "reference"):
            _expect_refusal(operator, x, backend)
        return
    actual, expected = (differentiate(operator, x, backend) for backend in ("auto", "reference"))
    bound = 1e-12 * max(float(tensor.detach().abs().max()) for tensor in expected)
    for ours, theirs in zip(actual, expected, strict=True):
        require(ours.shape == theirs.shape, f"shape {tuple(ours.shape)}, in the reference {tuple(theirs.shape)}")
        error = float((ours - theirs).detach().abs().max())
        require(error <= bound, f"on a map of {size} a number is off the reference by {error:.1e}")


def differentiate(operator: LocalAttention, x: Tensor, backend: str) -> list[Tensor]:
    """The output and the gradients of the input and of each parameter, by one backend."""
    operator.backend = backend
    x = x.clone().requires_grad_()
    y = operator(x)
    weight = torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(4))
    return [y, *torch.autograd.grad((y * weight).sum(), [x, *operator.parameters()])]


def _expect_refusal(operator: LocalAttention, x: Tensor, backend: str) -> None:
    operator.backend = backend
    try:
        operator(x)
    except ValueError as error:
        require("counted taps" in str(error), f"too few counted taps are refused with another message: {error}")
    else:
        raise LawBroken(f"{backend} computes a query with fewer counted taps than the normalization needs")
