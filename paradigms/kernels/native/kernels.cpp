// The functions that Python calls; compiled once for each instruction set.
#include "job.h"
#include "sliding.h"
#include "window.h"

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define EXPORT(name) extern "C" __attribute__((visibility("default"))) int32_t JOIN(name, PARADIGMS_ISA)

namespace isa = PARADIGMS_ISA;

template <class T>
static int32_t run_sliding(const SlidingCase* problem, bool backward) {
    return isa::run<isa::Sliding<T>>(problem, problem->batch * problem->heads, backward);
}

template <class T>
static int32_t run_windows(const WindowCase* problem, bool backward) {
    const int64_t num_windows = problem->batch * problem->count[0] * problem->count[1];
    return isa::run<isa::Windows<T>>(problem, isa::divide_up(num_windows, problem->group) * problem->heads, backward);
}

EXPORT(paradigms_sliding_forward_f32_)(const SlidingCase* problem) { return run_sliding<float>(problem, false); }
EXPORT(paradigms_sliding_forward_f64_)(const SlidingCase* problem) { return run_sliding<double>(problem, false); }
EXPORT(paradigms_sliding_backward_f32_)(const SlidingCase* problem) { return run_sliding<float>(problem, true); }
EXPORT(paradigms_sliding_backward_f64_)(const SlidingCase* problem) { return run_sliding<double>(problem, true); }
EXPORT(paradigms_window_forward_f32_)(const WindowCase* problem) { return run_windows<float>(problem, false); }
EXPORT(paradigms_window_forward_f64_)(const WindowCase* problem) { return run_windows<double>(problem, false); }
EXPORT(paradigms_window_backward_f32_)(const WindowCase* problem) { return run_windows<float>(problem, true); }
EXPORT(paradigms_window_backward_f64_)(const WindowCase* problem) { return run_windows<double>(problem, true); }
