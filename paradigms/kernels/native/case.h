// What Python hands over, mirrored field by field by ctypes.Structure in structures.py.
#pragma once

#include <stdint.h>

// (batch, height, width, heads, head_dim) with strides in elements; channels are contiguous. No data: absent.
struct Map {
    void* data;
    int64_t batch, row, column, head;
};

// What is asked for. DOT takes q and v and makes taps, MIX takes taps and v, REVERSE takes taps and makes out,
// CORRELATE takes taps, q and v and makes dfilters, SPREAD, the transpose of MIX, takes taps and v; DOT, MIX and SPREAD
// take filters where there are some. LOGITS makes taps, q·rk + rq·k + rb, of maps that all heads share; LOGITS_BACKWARD
// takes the gradient of these taps and makes dq and dk, sums over heads, and drk, drq and drb.
enum Task { FORWARD, BACKWARD, DOT, MIX, REVERSE, CORRELATE, SPREAD, LOGITS, LOGITS_BACKWARD };

// Softmax attention over sliding windows, and its primitives. Tables are (heads, taps, head_dim), biases (heads, taps),
// contiguous.
struct SlidingCase {
    int64_t batch, height, width, heads, head_dim;
    int64_t kernel[2], dilation[2];  // kernel: of all offsets between queries and keys; tables have a row for each
    int64_t window[2];               // of the taps that a query has; the kernel where `row_base` is null
    int64_t threads;
    int64_t has_dot;  // whether q·k is a term
    double scale;     // of q·k
    double keep;      // probability of keeping a weight; 1 without dropout
    uint64_t seed;
    const int32_t *first_row, *last_row;        // by row of queries: the keys that are counted; null: all are
    const int32_t *first_column, *last_column;  // by column of queries
    const int32_t *row_base, *column_base;      // by row and column of queries: the offset of the first tap; null: 0
    const void *rk, *rq, *rb;
    Map q, k, v, grad, taps, out, dq, dk, dv;  // taps: weights, K channels a head
    Map filters;                               // of the primitives: a map of K rows and one column
    void* normalizer;       // (batch, height, width, heads, 2): the largest logit m, and Σ e^(logit - m)
    void *drk, *drq, *drb;  // (batch, ...): one partial sum an image, added up by the caller in this order
    void* dfilters;         // (batch, heads, taps, head_dim)
};

// Softmax attention in windows, and its primitives DOT, MIX, SPREAD and CORRELATE: the map, moved and filled up, is cut
// into windows of `window` pixels. Tables are (heads, offsets, head_dim) with 2 * window - 1 offsets along each axis.
struct WindowCase {
    int64_t batch, height, width, heads, head_dim;
    int64_t window[2], count[2];  // count: windows along each axis
    int64_t threads;
    int64_t group;    // windows that one item takes
    int64_t has_dot;  // whether q·k is a term
    double scale;     // of q·k
    double keep;      // probability of keeping a weight; 1 without dropout
    uint64_t seed;
    const int32_t *row_at, *column_at;          // the pixel that stands at each place of the cut map; -1: outside
    const int32_t *row_region, *column_region;  // places see each other in one region only; null: everywhere
    const void *rk, *rq, *rb;
    const void *outside_k, *outside_v;         // (heads, head_dim): what a place outside the map carries; null: zeros
    Map q, k, v, grad, taps, out, dq, dk, dv;  // taps: weights, `window` numbers a head
    Map filters;                               // of the primitives: a map of as many rows as offsets and one column
    void* normalizer;  // (batch, height, width, heads, 2): the largest logit m, and Σ e^(logit - m)
    void *drk, *drq, *drb, *doutside_k, *doutside_v;  // (items, ...): one partial sum an item, heads innermost
    void* dfilters;                                   // likewise
};
