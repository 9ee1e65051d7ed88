// Memory for one thread's work, kept from call to call.
//
// What malloc gives back to the system in between has to be mapped again page by page, for which threads wait for each
// other.
#pragma once

#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>

// Under AddressSanitizer only blocks are addressable, and there is a gap between them.
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
constexpr size_t GAP = 64;
#else
#define ASAN_POISON_MEMORY_REGION(address, bytes)
#define ASAN_UNPOISON_MEMORY_REGION(address, bytes)
constexpr size_t GAP = 0;
#endif

struct Arena {
    static constexpr size_t ALIGNMENT = 64;           // of every block
    static constexpr size_t PAGE = size_t(1) << 21;   // a huge one, where the system has them
    static constexpr size_t KEPT = size_t(64) << 20;  // more than this is given back after a call

    // Stands at the start of its own memory; blocks follow.
    struct alignas(ALIGNMENT) Chunk {
        Chunk* next;
        size_t size, used;
    };
    Arena* next = nullptr;  // of those that no thread uses
    Chunk* chunks = nullptr;
    size_t size = 0;

    // A block, null where there is no memory; it lives until `clear`.
    void* allocate(size_t bytes) {
        const size_t whole = round_up(bytes, ALIGNMENT) + GAP;
        Chunk* chunk = chunks;
        while (chunk && chunk->size - chunk->used < whole) chunk = chunk->next;
        if (!chunk && !(chunk = grow(whole + sizeof(Chunk)))) return nullptr;
        char* const block = reinterpret_cast<char*>(chunk) + chunk->used;
        chunk->used += whole;
        ASAN_UNPOISON_MEMORY_REGION(block, bytes);
        return block;
    }

    // Forgets all blocks; keeps their memory unless it is much.
    void clear() {
        if (size > KEPT) {
            for (Chunk* chunk = chunks; chunk;) {
                Chunk* const after = chunk->next;
                free(chunk);
                chunk = after;
            }
            chunks = nullptr, size = 0;
        }
        for (Chunk* chunk = chunks; chunk; chunk = chunk->next) empty(chunk);
    }

  private:
    static size_t round_up(size_t bytes, size_t to) { return (bytes + to - 1) / to * to; }

    static void empty(Chunk* chunk) {
        chunk->used = sizeof(Chunk);
        ASAN_POISON_MEMORY_REGION(chunk + 1, chunk->size - sizeof(Chunk));
    }

    Chunk* grow(size_t bytes) {
        const size_t wanted = round_up(bytes, PAGE);
        void* memory = nullptr;
        if (posix_memalign(&memory, PAGE, wanted)) return nullptr;
#if defined(MADV_HUGEPAGE)
        madvise(memory, wanted, MADV_HUGEPAGE);
#endif
        chunks = new (memory) Chunk{chunks, wanted, 0};
        empty(chunks);
        size += wanted;
        return chunks;
    }
};
