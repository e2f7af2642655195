/*
 * Allocation that does not fail: out of memory ends the process with a line on stderr. What bounds memory is the
 * configured limits, never a failing malloc. Memory is given back with free().
 */
#ifndef GATEHOUSE_BASE_MEMORY_H
#define GATEHOUSE_BASE_MEMORY_H

#include <stddef.h>

/* `n` objects of `size` bytes each, zeroed. */
void *memory_zeroed(size_t n, size_t size) __attribute__((malloc, returns_nonnull));

/* realloc() that does not fail; size must not be 0. */
void *memory_resize(void *at, size_t size) __attribute__((returns_nonnull));

/* A terminated copy of `len` bytes. */
char *memory_copy(const char *at, size_t len) __attribute__((malloc, returns_nonnull));

#endif
