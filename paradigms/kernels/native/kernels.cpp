// The functions that Python calls; compiled once for each instruction set.
#include "sliding.h"

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define EXPORT(name) extern "C" __attribute__((visibility("default"))) int32_t JOIN(JOIN(name, _), PARADIGMS_ISA)

namespace isa = PARADIGMS_ISA;

EXPORT(paradigms_sliding_forward_f32)(const SlidingCase* problem) { return isa::run_sliding<float>(problem, false); }
EXPORT(paradigms_sliding_forward_f64)(const SlidingCase* problem) { return isa::run_sliding<double>(problem, false); }
EXPORT(paradigms_sliding_backward_f32)(const SlidingCase* problem) { return isa::run_sliding<float>(problem, true); }
EXPORT(paradigms_sliding_backward_f64)(const SlidingCase* problem) { return isa::run_sliding<double>(problem, true); }
