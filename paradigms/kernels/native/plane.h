// One head of one image as planes: a row of the map is (channels, columns), so that vectors run along columns.
#pragma once

#include <string.h>

#include "case.h"
#include "parallel.h"
#include "vector.h"

namespace PARADIGMS_ISA {

INLINE int64_t divide_up(int64_t x, int64_t by) { return (x + by - 1) / by; }
INLINE int64_t round_up(int64_t x, int64_t to) { return divide_up(x, to) * to; }

template <class T>
INLINE T* allocate(Arena* arena, int64_t count) {  // zeros; null where there is no memory
    void* const block = paradigms_allocate(arena, (count + 64) * sizeof(T));
    if (block) memset(block, 0, (count + 64) * sizeof(T));
    return static_cast<T*>(block);
}

// Rows of (channels, columns) with room for a halo before the columns, which is also that behind those before it, and
// one row of zeros at the end.
template <class T>
struct Plane {
    T* memory = nullptr;
    int64_t height = 0, channels = 0, left = 0, stride = 0;

    bool create(Arena* arena, int64_t rows, int64_t depth, int64_t width, int64_t halo) {
        constexpr int64_t line = 64 / sizeof(T);
        height = rows, channels = depth, left = round_up(halo, line);
        stride = left + round_up(width, line);
        memory = allocate<T>(arena, (height + 1) * channels * stride + left);
        return memory;
    }
    // Column 0 of a row; outside the map that of the row of zeros.
    INLINE T* row(int64_t y) const { return memory + (y < 0 || y >= height ? height : y) * channels * stride + left; }
};

// A square of pixels by channels from a map, with zeros beyond its end.
template <class S, class T>
INLINE void load_tile(typename S::V (&tile)[S::count], const T* from, int64_t step, int64_t pixels, int64_t channels) {
    static const T nothing[S::count] = {};
    if (channels >= S::count) {
        UNROLL
        for (int i = 0; i < S::count; i++)
            tile[i] = load<S>(i < pixels ? from + i * step : nothing);
    } else {
        for (int i = 0; i < S::count; i++)
            tile[i] = i < pixels ? load_some<S>(from + i * step, channels) : typename S::V{};
    }
}

template <class S, class T>
INLINE void store_tile(const typename S::V (&tile)[S::count], T* to, int64_t step, int64_t pixels, int64_t channels) {
    if (channels >= S::count) {
        UNROLL
        for (int i = 0; i < S::count; i++)
            if (i < pixels) store<S>(to + i * step, tile[i]);
    } else {
        for (int i = 0; i < S::count && i < pixels; i++) store_some<S>(to + i * step, tile[i], channels);
    }
}

// Copies (rows, columns), rows `step` apart, into rows that are `stride` long and zero beyond, divided by `divisor`.
template <class S, class T>
INLINE void load_table(T* to, const T* from, int64_t step, int64_t rows, int64_t columns, int64_t stride, T divisor) {
    for (int64_t row = 0; row < rows; row++)
        for (int64_t d = 0; d < columns; d += S::count) {
            const typename S::V entries = load_some<S>(from + row * step + d, columns - d) / divisor;
            store_some<S>(to + row * stride + d, entries, stride - d);
        }
}

// Copies a head of an image into a plane, times `factor`.
template <class S, class T>
OUTLINE void pack(const Plane<T>& plane, const Map& map, int64_t image, int64_t head, int64_t width, int64_t head_dim,
                  T factor) {
    constexpr int n = S::count;
    const int64_t step = map.column, stride = plane.stride, depth = plane.channels;
    for (int64_t y = 0; y < plane.height; y++) {
        const T* from = static_cast<const T*>(map.data) + image * map.batch + head * map.head + y * map.row;
        T* to = plane.row(y);
        for (int64_t x = 0; x < width; x += n)
            for (int64_t d = 0; d < head_dim; d += n) {
                typename S::V tile[n];
                for (int i = 0; i < n; i++) __builtin_prefetch(from + (x + 2 * n + i) * step + d);
                load_tile<S, T>(tile, from + x * step + d, step, width - x, head_dim - d);
                transpose<S>(tile);
                UNROLL
                for (int j = 0; j < n; j++)
                    if (d + j < depth) store<S>(to + (d + j) * stride + x, tile[j] * factor);
            }
    }
}

// Copies one row of (channels, columns) back, times `factor`.
template <class S, class T>
OUTLINE void unpack_row(const T* row, int64_t stride, const Map& map, int64_t image, int64_t head, int64_t y,
                        int64_t width, int64_t head_dim, int64_t depth, T factor) {
    constexpr int n = S::count;
    T* to = static_cast<T*>(map.data) + image * map.batch + head * map.head + y * map.row;
    for (int64_t x = 0; x < width; x += n)
        for (int64_t d = 0; d < head_dim; d += n) {
            typename S::V tile[n];
            UNROLL
            for (int j = 0; j < n; j++)
                tile[j] = d + j < depth ? load<S>(row + (d + j) * stride + x) * factor : typename S::V{};
            transpose<S>(tile);
            store_tile<S, T>(tile, to + x * map.column + d, map.column, width - x, head_dim - d);
        }
}

}  // namespace PARADIGMS_ISA
