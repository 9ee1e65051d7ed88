"""The arguments of the compiled kernels: the structures of native/case.h in ctypes, and checks of their layout."""

import ctypes
from enum import IntEnum
from itertools import takewhile


class Task(IntEnum):
    """Mirrors `Task` in native/case.h."""

    FORWARD = 0
    BACKWARD = 1
    DOT = 2
    MIX = 3
    REVERSE = 4
    CORRELATE = 5
    SPREAD = 6
    LOGITS = 7
    LOGITS_BACKWARD = 8


class Map(ctypes.Structure):
    """Mirrors `Map` in native/case.h."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("batch", "row", "column", "head")),
    )


class SlidingCase(ctypes.Structure):
    """Mirrors `SlidingCase` in native/case.h."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("batch", "height", "width", "heads", "head_dim")),
        ("kernel", ctypes.c_int64 * 2),
        ("dilation", ctypes.c_int64 * 2),
        ("window", ctypes.c_int64 * 2),
        ("threads", ctypes.c_int64),
        ("has_dot", ctypes.c_int64),
        ("scale", ctypes.c_double),
        ("keep", ctypes.c_double),
        ("seed", ctypes.c_uint64),
        *((name, ctypes.c_void_p) for name in ("first_row", "last_row", "first_column", "last_column")),
        *((name, ctypes.c_void_p) for name in ("row_base", "column_base")),
        *((name, ctypes.c_void_p) for name in ("rk", "rq", "rb")),
        *((name, Map) for name in ("q", "k", "v", "grad", "taps", "out", "dq", "dk", "dv", "filters")),
        *((name, ctypes.c_void_p) for name in ("normalizer", "drk", "drq", "drb", "dfilters")),
    )


class WindowCase(ctypes.Structure):
    """Mirrors `WindowCase` in native/case.h."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("batch", "height", "width", "heads", "head_dim")),
        ("window", ctypes.c_int64 * 2),
        ("count", ctypes.c_int64 * 2),
        *((name, ctypes.c_int64) for name in ("threads", "group", "has_dot")),
        ("scale", ctypes.c_double),
        ("keep", ctypes.c_double),
        ("seed", ctypes.c_uint64),
        *((name, ctypes.c_void_p) for name in ("row_at", "column_at", "row_region", "column_region")),
        *((name, ctypes.c_void_p) for name in ("rk", "rq", "rb", "outside_k", "outside_v")),
        *((name, Map) for name in ("q", "k", "v", "grad", "taps", "out", "dq", "dk", "dv", "filters")),
        *((name, ctypes.c_void_p) for name in ("normalizer", "drk", "drq", "drb", "doutside_k", "doutside_v")),
        ("dfilters", ctypes.c_void_p),
    )


MIRRORS: tuple[type[ctypes.Structure], ...] = (Map, SlidingCase, WindowCase)


class Place(ctypes.Structure):
    """Mirrors `Place` in native/library.cpp."""

    _fields_ = (
        *((name, ctypes.c_char_p) for name in ("structure", "field")),
        *((name, ctypes.c_int64) for name in ("offset", "size")),
    )


def list_places(library: ctypes.CDLL) -> dict[str, tuple[int, int]]:
    """Offset and size of every structure and field in the compiled library, by names such as `Map`, `Map.data`."""
    library.paradigms_places.restype = ctypes.POINTER(Place)
    listed = takewhile(lambda place: place.structure, library.paradigms_places())
    return {b".".join(filter(None, (x.structure, x.field))).decode(): (x.offset, x.size) for x in listed}


def list_mirrored_places() -> dict[str, tuple[int, int]]:
    """Offset and size of every structure and field in this file, as laid out by ctypes."""
    places = {}
    for mirror in MIRRORS:
        name = mirror.__name__
        places[name] = 0, ctypes.sizeof(mirror)
        for field, *_ in mirror._fields_:
            place = getattr(mirror, field)
            places[f"{name}.{field}"] = place.offset, place.size
    return places
