/* The kernels of diffeo, for processors: what is common to them, and how they are called.

   A kernel's formulas, their names and bounds are those of the Python file that its own file names; it is tested against
   that one. This file includes itself. From the outside in: once for each set of instructions (TARGET), for all of which
   one build serves and of which the best is chosen at run time; there once for each pair of a type that is read and
   written (IO) and a type that is computed in (REAL). LANES numbers go together, as one vector of the compilers' own
   vector types. Needs gcc or clang; no header of Python or torch. */

#ifndef LEVEL /* ------------------------------------------------------------------ the whole file, once */

#include <stdint.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#ifndef SOURCE
#define SOURCE "unknown"
#endif

#define MOST_BINS 500
#define SMALLEST_BIN 1e-3
#define LOG_STEEPEST 6.907755278982137 /* log 1000 */
#define STEPS 1                        /* safeguarded Newton steps after the closed form, and one more */
#define CHUNK 2048                     /* numbers that a thread takes at a time; a multiple of every LANES */

enum { FORWARD, BACKWARD, INVERSE, INVERSE_BACKWARD };

typedef struct {
    int what, bins, circular;
    int64_t m;
    double bound;
    const void *x, *raw;           /* of an inverse, x holds y */
    const void *g_moved, *g_slope; /* gradients that come in, either may be NULL for zero */
    void *moved, *slope;           /* y and log dy/dx; of a gradient, `moved` holds that of x */
    void *g_raw;                   /* NULL where it is not wanted */
} Job;

#define BLOCK 64 /* rows of a stack that go together; a multiple of every LANES */
#define MOST_WIDTH 64
#define MOST_D 32
#define NEAR 5.0
#define FURTHEST 1e6
#define LEAK 0.01
#define LARGEST (SINGLE ? 1.8446743523953730e19 : 1.3407807929942596e154) /* root of the largest number */

typedef struct {
    int64_t n;
    int steps, pair, bent, sizes[2], features, tensors, depth;
    const int64_t *widths, *movers, *inverted;
    const double *limits;
    const void *const *weights;
    double *const *sums;
    const void *x, *g_z, *g_log_det;
    void *z, *log_det, *g_x;
} Stack;

typedef struct {
    int what, bent;
    int64_t m;
    double limit;
    const void *x, *raw, *g_moved, *g_slope;
    void *moved, *slope, *g_raw; /* of a gradient, `moved` holds that of x */
} Affine;

typedef void Run(const Job *, int64_t start, int64_t stop);

#define INLINE static inline __attribute__((always_inline))
#define GLUE3(a, b, c) a##b##c
#define GLUE2(a, b, c) GLUE3(a, b, c)
#define NAMED(name) GLUE2(name, TYPES, TARGET)

#define LEVEL 1
#define TARGET _plain
#define BYTES 16
#include "kernels.c"
#undef TARGET
#undef BYTES

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define X86 1
#define TARGET _v3
#define BYTES 32
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
#include "kernels.c"
#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#undef TARGET
#undef BYTES

#define TARGET _v4
#define BYTES 64
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma,avx512f,avx512vl,avx512dq,avx512bw"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512vl,avx512dq,avx512bw")
#endif
#include "kernels.c"
#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#undef TARGET
#undef BYTES
#else
#define X86 0
#endif
#undef LEVEL

const char *diffeo_source(void) { return SOURCE; }

/* The best set of instructions of this processor: 0 plain, 1 x86-64-v3, 2 x86-64-v4. */
int diffeo_best(void) {
#if X86
    int v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    int v4 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
    return v3 ? 1 + v4 : 0;
#else
    return 0;
#endif
}

/* Whether several threads can be at work. */
int diffeo_threaded(void) {
#ifdef _OPENMP
    return 1;
#else
    return 0;
#endif
}

void diffeo_spline(int what, int wide, int target, int threads, int64_t m, int bins, int circular, double bound,
                   const void *x, const void *raw, const void *g_moved, const void *g_slope, void *moved, void *slope,
                   void *g_raw) {
    /* [target][float32 or float64][forward or inverse]; a float32 inverse is computed in float64 */
    static Run *const runs[][2][2] = {
        {{run_ff_plain, run_fd_plain}, {run_dd_plain, run_dd_plain}},
#if X86
        {{run_ff_v3, run_fd_v3}, {run_dd_v3, run_dd_v3}},
        {{run_ff_v4, run_fd_v4}, {run_dd_v4, run_dd_v4}},
#endif
    };
    Job job = {what, bins, circular, m, bound, x, raw, g_moved, g_slope, moved, slope, g_raw};
    Run *run = runs[target][wide != 0][what >= INVERSE];
#ifdef _OPENMP
    if (threads > 1) {
        int64_t chunks = (m + CHUNK - 1) / CHUNK;
#pragma omp parallel for schedule(static) num_threads(threads)
        for (int64_t i = 0; i < chunks; i++) run(&job, i * CHUNK, (i + 1) * CHUNK < m ? (i + 1) * CHUNK : m);
        return;
    }
#endif
    (void)threads;
    run(&job, 0, m);
}

void diffeo_affine(int what, int wide, int target, int64_t m, int bent, double limit, const void *x, const void *raw,
                   const void *g_moved, const void *g_slope, void *moved, void *slope, void *g_raw) {
    static void (*const maps[][2])(const Affine *) = {
        {linear_ff_plain, linear_dd_plain},
#if X86
        {linear_ff_v3, linear_dd_v3},
        {linear_ff_v4, linear_dd_v4},
#endif
    };
    Affine a = {what, bent, m, limit, x, raw, g_moved, g_slope, moved, slope, g_raw};
    maps[target][wide != 0](&a);
}

/* plan: steps, pair, bent, sizes of the halves, features, tensors of a step, depth; widths, which halves move, which
   steps are inverted, how many numbers each tensor has. Where gradients come in (g_z), those of the weights and of x go
   out; the former are added up in `sums`, which are zero. `kept` has room for a block of all steps, once for each thread. */
void diffeo_stack(int wide, int target, int threads, int64_t n, const int64_t *plan, const double *limits,
                  const void *const *weights, double *const *sums, void *const *gradients, const void *x, void *z,
                  void *log_det, void *kept, const void *g_z, const void *g_log_det, void *g_x) {
    static void (*const stacks[][2])(const Stack *, int64_t, void *) = {
        {stack_ff_plain, stack_dd_plain},
#if X86
        {stack_ff_v3, stack_dd_v3},
        {stack_ff_v4, stack_dd_v4},
#endif
    };
    const int depth = (int)plan[7], steps = (int)plan[0];
    const int64_t size = wide ? sizeof(double) : sizeof(float), blocks = (n + BLOCK - 1) / BLOCK;
    const int64_t *widths = plan + 8, *movers = widths + depth, *inverted = movers + steps, *counts = inverted + steps;
    Stack s = {n, steps, (int)plan[1], (int)plan[2], {(int)plan[3], (int)plan[4]}, (int)plan[5], (int)plan[6], depth,
               widths, movers, inverted, limits, weights, sums, x, g_z, g_log_det, z, log_det, g_x};
#ifdef _OPENMP
    if (threads > 1) {
#pragma omp parallel for schedule(static) num_threads(threads)
        for (int64_t i = 0; i < blocks; i++)
            stacks[target][wide != 0](&s, i, (char *)kept + omp_get_thread_num() * size * BLOCK * s.features * steps);
        return;
    }
#endif
    (void)threads;
    for (int64_t i = 0; i < blocks; i++) stacks[target][wide != 0](&s, i, kept);
    for (int i = 0; gradients && i < steps * s.tensors; i++)
        for (int64_t j = 0; j < counts[i]; j++)
            if (wide)
                ((double *)gradients[i])[j] = sums[i][j];
            else
                ((float *)gradients[i])[j] = (float)sums[i][j];
}

#elif LEVEL == 1 /* ------------------------------------------------------- once for each set of instructions */

#undef LEVEL
#define LEVEL 2

#define TYPES _ff
#define IO float
#define REAL float
#define BITS uint32_t
#define SINGLE 1
#define INWARD 1
#include "kernels.c"
#undef TYPES
#undef IO
#undef REAL
#undef BITS
#undef SINGLE
#undef INWARD

#define SINGLE 0
#define REAL double
#define BITS uint64_t
#define TYPES _fd
#define IO float
#define INWARD 0
#include "kernels.c"
#undef TYPES
#undef IO
#undef INWARD
#define INWARD 1

#define TYPES _dd
#define IO double
#include "kernels.c"
#undef TYPES
#undef IO
#undef REAL
#undef BITS
#undef SINGLE
#undef INWARD

#undef LEVEL
#define LEVEL 1

#else /* --------------------------------------------------------------------- once for each pair of types */


#include "vectors.h"

#include "spline.c"
#if INWARD
#include "affine.c"
#include "stack.c"
#endif
#endif
