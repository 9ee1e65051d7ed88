// One head of one image as planes: a row of the map is (channels, columns), so that vectors run along columns.
#pragma once

#include <stdlib.h>

#include "case.h"
#include "vector.h"

namespace PARADIGMS_ISA {

INLINE int64_t round_up(int64_t x, int64_t to) { return (x + to - 1) / to * to; }

template <class T>
INLINE T* allocate(int64_t count) {  // zeros; null where there is no memory
    void* block = nullptr;
    if (posix_memalign(&block, 64, (count + 64) * sizeof(T))) return nullptr;
    memset(block, 0, (count + 64) * sizeof(T));
    return static_cast<T*>(block);
}

// Rows of (channels, columns) with room for a halo on both sides of the columns, and one row of zeros at the end.
template <class T>
struct Plane {
    T* memory = nullptr;
    int64_t height = 0, channels = 0, left = 0, stride = 0;

    bool create(int64_t rows, int64_t depth, int64_t width, int64_t halo) {
        height = rows, channels = depth, left = halo;
        stride = round_up(width + 2 * halo, 8);
        memory = allocate<T>((height + 1) * channels * stride);
        return memory;
    }
    // Column 0 of a row; outside the map that of the row of zeros.
    INLINE T* row(int64_t y) const {
        return memory + (y < 0 || y >= height ? height : y) * channels * stride + left;
    }
};

// Copies a head of an image into a plane, times `factor`.
template <class S, class T>
void pack(const Plane<T>& plane, const Map& map, int64_t image, int64_t head, int64_t width, int64_t head_dim,
          T factor) {
    typedef typename S::V V;
    constexpr int n = S::count;
    const T* from = static_cast<const T*>(map.data) + image * map.batch + head * map.head;
    for (int64_t y = 0; y < plane.height; y++)
        for (int64_t x = 0; x < width; x += n)
            for (int64_t d = 0; d < head_dim; d += n) {
                V tile[n];
                for (int i = 0; i < n; i++)
                    tile[i] = x + i < width
                                  ? load_some<S>(from + y * map.row + (x + i) * map.column + d, head_dim - d) * factor
                                  : V{};
                transpose<S>(tile);
                T* to = plane.row(y) + d * plane.stride + x;
                for (int j = 0; j < n; j++)
                    if (d + j < plane.channels) store<S>(to + j * plane.stride, tile[j]);
            }
}

// Copies one row of (channels, columns) back, times `factor`.
template <class S, class T>
void unpack_row(const T* row, int64_t stride, const Map& map, int64_t image, int64_t head, int64_t y, int64_t width,
                int64_t head_dim, T factor) {
    typedef typename S::V V;
    constexpr int n = S::count;
    T* to = static_cast<T*>(map.data) + image * map.batch + head * map.head + y * map.row;
    for (int64_t x = 0; x < width; x += n)
        for (int64_t d = 0; d < head_dim; d += n) {
            V tile[n];
            for (int j = 0; j < n; j++) tile[j] = d + j < head_dim ? load<S>(row + (d + j) * stride + x) * factor : V{};
            transpose<S>(tile);
            for (int i = 0; i < n && x + i < width; i++) store_some<S>(to + (x + i) * map.column + d, tile[i], head_dim - d);
        }
}

}  // namespace PARADIGMS_ISA
