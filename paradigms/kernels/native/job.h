// From a case to threads that work on its items.
#pragma once

#include "case.h"
#include "parallel.h"
#include "vector.h"

namespace PARADIGMS_ISA {

template <class Worker, class Case>
struct Job {
    const Case* problem;
    Task task;
    bool failed;

    static void work(void* context, Queue* queue) {
        Job& job = *static_cast<Job*>(context);
        Arena* const arena = paradigms_open_arena();
        Worker worker(*job.problem, job.task, arena);
        if (arena && worker.create())
            for (int64_t item; (item = paradigms_next_item(queue)) >= 0;) worker.run(item);
        else
            __atomic_store_n(&job.failed, true, __ATOMIC_RELAXED);  // several threads may say so
        if (arena) paradigms_close_arena(arena);
    }
};

// 0, or 1 where there is not enough memory.
template <class Worker, class Case>
int32_t run(const Case* problem, int64_t num_items, Task task) {
    Job<Worker, Case> job{problem, task, false};
    paradigms_run(num_items, problem->threads, Job<Worker, Case>::work, &job);
    return job.failed;
}

}  // namespace PARADIGMS_ISA
