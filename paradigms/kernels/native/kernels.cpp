// The functions that Python calls; compiled once for each instruction set.
#include "job.h"
#include "sliding.h"
#include "window.h"

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define EXPORT(name) extern "C" __attribute__((visibility("default"))) int32_t JOIN(name, PARADIGMS_ISA)

namespace isa = PARADIGMS_ISA;

template <class T>
static int32_t run_sliding(const SlidingCase* problem, Task task) {
    return isa::run<isa::Sliding<T>>(problem, isa::Sliding<T>::count_items(*problem, task), task);
}

template <class T>
static int32_t run_windows(const WindowCase* problem, Task task) {
    return isa::run<isa::Windows<T>>(problem, isa::Windows<T>::count_items(*problem, task), task);
}

EXPORT(paradigms_sliding_f32_)(const SlidingCase* problem, int32_t task) {
    return run_sliding<float>(problem, Task(task));
}
EXPORT(paradigms_sliding_f64_)(const SlidingCase* problem, int32_t task) {
    return run_sliding<double>(problem, Task(task));
}
EXPORT(paradigms_window_f32_)(const WindowCase* problem, int32_t task) {
    return run_windows<float>(problem, Task(task));
}
EXPORT(paradigms_window_f64_)(const WindowCase* problem, int32_t task) {
    return run_windows<double>(problem, Task(task));
}
