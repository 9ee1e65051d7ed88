import pickle
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import product

import pytest
import torch

from paradigms import (
    aggregation,
    backbones,
    config,
    facts,
    neighborhood,
    normalization,
    parameterization,
    presets,
    projection,
)
from paradigms.attention import build_attention
from paradigms.config import AttentionConfig, make_config
from paradigms.kernels import KERNELS, choose_kernel
from paradigms.normalization import NORMALIZATIONS


@pytest.mark.parametrize(
    ("listed", "mapping"),
    [
        (config.TERMS, parameterization.TERMS),
        (facts.PARAMETERIZATIONS, parameterization.PARAMETERIZATIONS),
        (facts.NORMALIZATIONS, normalization.NORMALIZATIONS),
        (facts.NEIGHBORHOODS, neighborhood.NEIGHBORHOODS),
        (facts.AGGREGATIONS, aggregation.AGGREGATIONS),
        (config.PROJECTIONS, projection.PROJECTIONS),
        (config.BACKBONES, backbones.BACKBONES),
    ],
    ids=["terms", "parameterizations", "normalizations", "neighborhoods", "aggregations", "projections", "backbones"],
)
def test_the_names_are_the_keys_of_the_rooms(listed: Sequence[str], mapping: dict[str, object]) -> None:
    assert list(listed) == list(mapping)


def test_the_backends_are_those_of_the_kernels() -> None:
    assert set(config.BACKENDS) == {"auto", *(kernel.backend for kernel in KERNELS)}


PLACES = [(neighborhood, border) for neighborhood, known in facts.NEIGHBORHOODS.items() for border in known.borders]
MADE: list[dict[str, object]] = [
    {"parameterization": ("query_key", "position_bias")},
    *({"parameterization": (name,)} for name in facts.PARAMETERIZATIONS if name not in config.TERMS),
]
MET: list[dict[str, object]] = [
    {"aggregation": "weighted_sum"},
    *(
        {"aggregation": "ghost_head", "ghost_lambda": power, "ghost_gamma": gain}
        for power, gain in product((0.0, 0.5), (0.0, 1.0))
    ),
    *({"aggregation": "channel_filter", "combine": combine} for combine in facts.COMBINATIONS),
]


def list_possible(neighborhood: str, border: str) -> Iterator[dict[str, object]]:
    """What a config may have there if its backend is not forced."""
    place = {"neighborhood": neighborhood, "border": border, "kernel_size": 5}
    for made, met, weights in product(MADE, MET, facts.NORMALIZATIONS):
        fields = {**place, **made, **met, "normalization": weights}
        with suppress(ValueError):
            make_config(fields)
            yield fields


@pytest.mark.parametrize(("neighborhood", "border"), PLACES)
def test_a_config_admits_exactly_what_the_kernels_support(neighborhood: str, border: str) -> None:
    verdicts = set()
    for fields in list_possible(neighborhood, border):
        with torch.device("meta"):
            parts = build_attention(make_config(fields), dim=4, num_heads=2)
        case = parts.neighborhood.geometry, parts.normalization, parts.aggregation.kind, parts.parameterization.scores
        for backend in config.BACKENDS:
            try:
                choose_kernel(*case, backend=backend)
            except ValueError as error:
                assert "does not support" in str(error)
                with pytest.raises(ValueError, match="has no kernel for"):
                    make_config({**fields, "backend": backend})
                verdicts.add(False)
            else:
                make_config({**fields, "backend": backend})
                verdicts.add(True)
    assert verdicts == {True, False}


def test_what_the_classes_of_levels_declare_stands_in_their_facts() -> None:
    for room, mapping in {"normalization": NORMALIZATIONS, "aggregation": aggregation.AGGREGATIONS}.items():
        declared = {name: getattr(level, "minimum_taps", 1) for name, level in mapping.items()}
        assert declared == {name: known.minimum_taps for name, known in facts.ROOMS[room].items()}
    scores = {name: level.scores for name, level in parameterization.PARAMETERIZATIONS.items()}
    assert scores == {name: known.scores for name, known in facts.PARAMETERIZATIONS.items()}


def test_no_field_is_read_by_two_rooms() -> None:
    owners = [
        (field, room) for room, levels in facts.ROOMS.items() for known in levels.values() for field in known.fields
    ]
    assert len({field for field, _ in owners}) == len({*owners}) == len(facts.FIELDS)


@pytest.mark.parametrize("name", facts.FIELDS)
def test_every_field_takes_its_default_and_refuses_what_it_cannot_be(name: str) -> None:
    field = facts.FIELDS[name]
    assert field.read(name, field.default) == field.default
    for wrong in (object(), float("nan"), [1, 2, 3], "no such name", -1):
        with pytest.raises(ValueError, match=name):
            field.read(name, wrong)


def test_a_config_survives_being_stored_and_copied() -> None:
    stated = AttentionConfig(neighborhood="sliding_window", aggregation="ghost_head", ghost_lambda=2)
    assert pickle.loads(pickle.dumps(stated)) == stated == make_config(stated.to_dict())
    assert replace(stated, kernel_size=5) == stated.replace(kernel_size=5) != stated
    assert hash(stated.replace(ghost_lambda=2.0)) == hash(stated)
    assert eval(repr(stated), {"AttentionConfig": AttentionConfig}) == stated


def test_the_order_of_terms_does_not_matter() -> None:
    assert make_config({"parameterization": ["position_bias", "query_key"]}) == AttentionConfig()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"normalization": "sofmax"}, "did you mean 'softmax'"),
        ({"parameterization": ["query_keys"]}, "did you mean 'query_key'"),
        ({"parameterization": []}, "at least one term"),
        ({"parameterization": ["query_key", "query_key"]}, "occurs twice"),
        ({"neighborhood": "sliding_windows"}, "did you mean 'sliding_window'"),
        ({"border": "shift"}, "unknown border of local_window 'shift'"),
        ({"kernel_size": 4}, "must be odd, got 4"),
        ({"window_size": 0}, "at least 1"),
        ({"shift_size": 7}, "shift_size must be in"),
        ({"kernel": 3}, "did you mean 'kernel_size'"),
        ({"backend": "cuda"}, "unknown backend"),
        (
            {"neighborhood": "sliding_window", "border": "shift", "backend": "dense"},
            "has no kernel for sliding_window, shift",
        ),
        (
            {"parameterization": ["hadamard"], "aggregation": "ghost_head", "backend": "torch"},
            "has no kernel for local_window, project, softmax with hadamard and ghost_head; use 'auto'",
        ),
        ({"normalization": "filter_norm", "window_size": 1}, "filter_norm needs at least 2 taps"),
        ({"se_ratio": 0.0}, "se_ratio must be a finite number above 0"),
        ({"combine": "sum"}, "unknown combine 'sum'"),
        ({"aggregation": "channel_filter"}, "channel_filter needs sliding_window"),
        ({"projections": "linaer"}, "did you mean 'linear'"),
        ({"projections": "batch_norm"}, "'batch_norm' need a border of mask, shift, zero; got local_window, project"),
        ({"parameterization": ["involution"]}, "involution needs sliding_window with border mask or project or zero"),
    ],
    ids=str,
)
def test_an_impossible_field_is_refused_with_what_is_possible(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_config(fields)


def test_canonical_form_leaves_out_defaults_and_what_has_no_effect() -> None:
    assert AttentionConfig().to_canonical() == {}
    assert AttentionConfig(border="project", kernel_size=3, window_size=(7, 7)).to_canonical() == {}
    sliding = AttentionConfig(neighborhood="sliding_window", border="zero", window_size=3)
    assert sliding.to_canonical() == {"neighborhood": "sliding_window"}
    assert replace(sliding, kernel_size=5).to_canonical() != sliding.to_canonical()


def test_every_preset_has_a_source_and_an_equation() -> None:
    for preset in presets.PRESETS.values():
        assert preset.source.startswith("arXiv:")
        assert "f_i = Σ" in preset.equation


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'net7_n'"):
        build_attention("net7n", dim=4, num_heads=1)


@pytest.mark.parametrize("num_heads", [0, 5], ids=str)
def test_heads_must_divide_the_channels(num_heads: int) -> None:
    with pytest.raises(ValueError, match="num_heads must divide dim"):
        build_attention("swin", dim=12, num_heads=num_heads)
