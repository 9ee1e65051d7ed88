// What Python hands over, mirrored field by field by ctypes.Structure in cpu.py.
#pragma once

#include <stdint.h>

// (batch, height, width, heads, head_dim) with strides in elements; channels are contiguous. No data: absent.
struct Map {
    void* data;
    int64_t batch, row, column, head;
};

// Softmax attention over sliding windows. Tables are (heads, taps, head_dim), biases (heads, taps), contiguous.
struct SlidingCase {
    int64_t batch, height, width, heads, head_dim;
    int64_t kernel[2], dilation[2];
    int64_t threads;
    int64_t has_dot;  // whether q·k is a term
    double scale;     // of q·k
    double keep;      // probability of keeping a weight; 1 without dropout
    uint64_t seed;
    const int32_t* counted_rows[2];     // by row, the first and the last row whose keys are counted; null: all are
    const int32_t* counted_columns[2];  // by column
    const void *rk, *rq, *rb;
    Map q, k, v, grad, out, dq, dk, dv;
    void* lse;                 // (batch, height, width, heads)
    void *drk, *drq, *drb;     // (batch, ...): one partial sum an image, added up by the caller in this order
};
