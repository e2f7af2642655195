/* What one front counts. One writer; everybody may read. */
#ifndef GATEHOUSE_BASE_COUNTERS_H
#define GATEHOUSE_BASE_COUNTERS_H

#include <stdatomic.h>
#include <stdint.h>

struct counters {
    _Atomic uint64_t accepted;    /* connections */
    _Atomic uint64_t requests;    /* answered */
    _Atomic uint64_t open;        /* connections now */
    _Atomic uint64_t statuses[6]; /* answers: 1xx, 2xx ...; [0] none */
};

/* For the one writer: no other adds, so no locked instruction is needed. */
static inline void counter_add(_Atomic uint64_t *counter, uint64_t n)
{
    uint64_t now = atomic_load_explicit(counter, memory_order_relaxed);

    atomic_store_explicit(counter, now + n, memory_order_relaxed);
}

static inline void counter_step(_Atomic uint32_t *counter)
{
    uint32_t now = atomic_load_explicit(counter, memory_order_relaxed);

    atomic_store_explicit(counter, now + 1, memory_order_relaxed);
}

#endif
