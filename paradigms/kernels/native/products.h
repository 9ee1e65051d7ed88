// The products that everything is made of, in registers: vectors run along columns of a map, or along windows.
#pragma once

#include "plane.h"

namespace PARADIGMS_ISA {

// How an entry of a table meets a value: not at all, and there is no table, or (value + entry), or value * entry, or it
// stands alone, and no value is read.
enum Table { ABSENT, ADDED, MULTIPLIED, ALONE };

template <Table TABLE, class V, class T>
INLINE V meet(V value, const T* table, int64_t entry) {
    if constexpr (TABLE == ADDED) return value + table[entry];
    if constexpr (TABLE == MULTIPLIED) return value * table[entry];
    if constexpr (TABLE == ALONE) return table[entry] - V{};  // -0 is kept
    return value;
}

constexpr int BAND = 3;                                         // rows that go together
constexpr int CHANNELS = PARADIGMS_VECTOR_BYTES == 64 ? 8 : 4;  // that one pass of `mix` holds in registers

// into[c][t] += Σ_d (a_c[d] with table_c[t][d]) b[d] where b moves by `step` from tap to tap.
template <class S, int C, int T, Table TABLE>
INLINE void dot_block(typename S::Scalar* const* into, const typename S::Scalar* const* a, int64_t a_stride,
                      const typename S::Scalar* b, int64_t b_stride, int64_t step,
                      const typename S::Scalar* const* table, int64_t table_step, int64_t head_dim) {
    typename S::V sum[C][T];
    UNROLL
    for (int c = 0; c < C; c++) UNROLL
        for (int t = 0; t < T; t++) sum[c][t] = load<S>(into[c] + t * S::count);
    for (int64_t d = 0; d < head_dim; d++) {
        typename S::V left[C];
        UNROLL
        for (int c = 0; c < C; c++)
            left[c] = load<S>(a[c] + d * a_stride);
        UNROLL
        for (int t = 0; t < T; t++) {
            const typename S::V right = load<S>(b + d * b_stride + t * step);
            UNROLL
            for (int c = 0; c < C; c++)
                sum[c][t] += meet<TABLE>(left[c], table[c], t * table_step + d) * right;
        }
    }
    UNROLL
    for (int c = 0; c < C; c++) UNROLL
        for (int t = 0; t < T; t++) store<S>(into[c] + t * S::count, sum[c][t]);
}

template <class S, int C, Table TABLE>
INLINE void dot_taps(typename S::Scalar* const* into, const typename S::Scalar* const* a, int64_t a_stride,
                     const typename S::Scalar* b, int64_t b_stride, int64_t step,
                     const typename S::Scalar* const* table, int64_t table_step, int64_t head_dim, int64_t taps) {
    typedef typename S::Scalar T;
    T* out[C];
    const T* tables[C];
    for (int64_t t = 0; t < taps;) {
        UNROLL
        for (int c = 0; c < C; c++)
            out[c] = into[c] + t * S::count, tables[c] = TABLE != ABSENT ? table[c] + t * table_step : nullptr;
        const T* from = b + t * step;
#define PARADIGMS_TAPS(N)                                                                                        \
    if (taps - t >= N) {                                                                                         \
        dot_block<S, C, N, TABLE>(out, a, a_stride, from, b_stride, step, tables, table_step, head_dim), t += N; \
        continue;                                                                                                \
    }
#if PARADIGMS_VECTOR_BYTES == 64
        PARADIGMS_TAPS(7)
        PARADIGMS_TAPS(5)
        PARADIGMS_TAPS(3)
#else
        PARADIGMS_TAPS(4)
        PARADIGMS_TAPS(3)
#endif
        PARADIGMS_TAPS(1)
#undef PARADIGMS_TAPS
    }
}

// into[c][t] = start[t] + Σ_d a_c[d] table[t][d]
template <class S, int C, int T>
INLINE void project_block(typename S::Scalar* const* into, const typename S::Scalar* const* a, int64_t a_stride,
                          const typename S::Scalar* table, int64_t table_step, const typename S::Scalar* start,
                          int64_t head_dim) {
    typename S::V sum[C][T];
    UNROLL
    for (int c = 0; c < C; c++) UNROLL
        for (int t = 0; t < T; t++) sum[c][t] = all<S>(start[t]);
    for (int64_t d = 0; d < head_dim; d++) {
        typename S::V left[C];
        UNROLL
        for (int c = 0; c < C; c++)
            left[c] = load<S>(a[c] + d * a_stride);
        UNROLL
        for (int t = 0; t < T; t++) UNROLL
            for (int c = 0; c < C; c++) sum[c][t] += left[c] * table[t * table_step + d];
    }
    UNROLL
    for (int c = 0; c < C; c++) UNROLL
        for (int t = 0; t < T; t++) store<S>(into[c] + t * S::count, sum[c][t]);
}

// sum[r][j] += Σ_t weights_r[t] (v[j] with table_r[t][j]) for rows FIRST to LAST, excluded; v moves with the tap. What
// is not finite there counts only where the mask has all bits set: weights are zero elsewhere.
template <class S, int FIRST, int LAST, Table TABLE, bool MASKED = false>
INLINE void mix_rows(typename S::V (&sum)[BAND][CHANNELS], const typename S::Scalar* const* weights,
                     int64_t weight_step, const typename S::Scalar* v, int64_t v_stride, int64_t v_step,
                     const typename S::Scalar* const* table, int64_t table_step, int64_t taps,
                     const typename S::Scalar* mask = nullptr, int64_t mask_step = 0) {
    for (int64_t t = 0; t < taps; t++) {
        typename S::V weight[BAND];
        UNROLL
        for (int r = FIRST; r < LAST; r++)
            weight[r] = load<S>(weights[r] + t * weight_step);
        UNROLL
        for (int j = 0; j < CHANNELS; j++) {
            typename S::V value = load<S>(v + j * v_stride + t * v_step);
            if constexpr (MASKED) value = choose<S>(value, load<S>(mask + t * mask_step));
            UNROLL
            for (int r = FIRST; r < LAST; r++)
                sum[r][j] += weight[r] * meet<TABLE>(value, table[r], t * table_step + j);
        }
    }
}

// sums[t][j] += Σ over rows and columns of weights[t] a[j]; sums are vectors in memory, one a tap, `sum_step` apart;
// `fresh` ones count from zero.
template <class S, int T>
INLINE void outer_block(typename S::Scalar* sums, int64_t lanes, int64_t sum_step, const typename S::Scalar* weights,
                        int64_t weight_step, int64_t weight_row, const typename S::Scalar* a, int64_t a_stride,
                        int64_t a_row, int64_t rows, int64_t columns, bool fresh) {
    typename S::V sum[T][4];
    UNROLL
    for (int t = 0; t < T; t++) UNROLL
        for (int j = 0; j < 4; j++) sum[t][j] = fresh ? typename S::V{} : load<S>(sums + t * sum_step + j * lanes);
    for (int64_t y = 0; y < rows; y++)
        for (int64_t x = 0; x < columns; x += S::count) {
            typename S::V right[4];
            UNROLL
            for (int j = 0; j < 4; j++)
                right[j] = load<S>(a + y * a_row + j * a_stride + x);
            UNROLL
            for (int t = 0; t < T; t++) {
                const typename S::V left = load<S>(weights + y * weight_row + t * weight_step + x);
                UNROLL
                for (int j = 0; j < 4; j++)
                    sum[t][j] += left * right[j];
            }
        }
    UNROLL
    for (int t = 0; t < T; t++) UNROLL
        for (int j = 0; j < 4; j++) store<S>(sums + t * sum_step + j * lanes, sum[t][j]);
}

// sums[t][j] += Σ over rows and columns of weights[t] a[j] b[j]; b moves by `b_step` from tap to tap; sums as above.
template <class S, int T>
INLINE void correlate_block(typename S::Scalar* sums, int64_t lanes, int64_t sum_step,
                            const typename S::Scalar* weights, int64_t weight_step, int64_t weight_row,
                            const typename S::Scalar* a, const typename S::Scalar* b, int64_t b_step, int64_t stride,
                            int64_t row, int64_t rows, int64_t columns) {
    typename S::V sum[T][4];
    UNROLL
    for (int t = 0; t < T; t++) UNROLL
        for (int j = 0; j < 4; j++) sum[t][j] = load<S>(sums + t * sum_step + j * lanes);
    for (int64_t y = 0; y < rows; y++)
        for (int64_t x = 0; x < columns; x += S::count) {
            typename S::V left[4];
            UNROLL
            for (int j = 0; j < 4; j++)
                left[j] = load<S>(a + y * row + j * stride + x);
            UNROLL
            for (int t = 0; t < T; t++) {
                const typename S::V weight = load<S>(weights + y * weight_row + t * weight_step + x);
                UNROLL
                for (int j = 0; j < 4; j++)
                    sum[t][j] += weight * left[j] * load<S>(b + y * row + j * stride + t * b_step + x);
            }
        }
    UNROLL
    for (int t = 0; t < T; t++) UNROLL
        for (int j = 0; j < 4; j++) store<S>(sums + t * sum_step + j * lanes, sum[t][j]);
}

// to[row][column] = factor times the sum of the lanes of vector (row, column) of `sums`, whose rows are `stride` long.
template <class S, class T>
OUTLINE void write_sums(T* to, const T* sums, int64_t rows, int64_t columns, int64_t stride, T factor) {
    constexpr int n = S::count;
    for (int64_t first = 0; first < rows * stride; first += n) {
        typename S::V tile[n];
        load_tile<S, T>(tile, sums + first * n, n, rows * stride - first, n);
        transpose<S>(tile);
        for (int width = n / 2; width; width /= 2)
            for (int i = 0; i < width; i++) tile[i] += tile[i + width];
        const typename S::V sum = tile[0] * factor;
        if (columns == stride) {
            store_some<S>(to + first, sum, rows * stride - first);
            continue;
        }
        for (int i = 0; i < n && first + i < rows * stride; i++) {
            const int64_t row = (first + i) / stride, column = (first + i) % stride;
            if (column < columns) to[row * columns + column] = sum[i];
        }
    }
}

}  // namespace PARADIGMS_ISA
