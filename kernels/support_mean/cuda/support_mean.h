/* The support-mean operation of UniverSeg's CrossBlock on CUDA: the C interface, usable from C and C++.
 *
 * Axes: B queries, K support sets, S entries of a set, C channels, H rows, W columns. All arrays are dense, row-major.
 *
 *   support_term (Bs,K,S,C,H,W)  Bs = B, or 1: shared by all queries     query_term (B,Kq,1,C,H,W)  Kq = K or 1
 *   weights (K,S) float32, summing to 1 in each set; 0 marks a padding entry
 *   activated    = LeakyReLU(support_term + query_term)    (B,K,S,C,H,W)     optional output
 *   mean         = sum_s weights * activated               (B,K,C,H,W)
 *   pooled       = 2x2 max pool of activated, floor        (B,K,S,C,H/2,W/2)
 *   pooled_mean  = sum_s weights * pooled                  (B,K,C,H/2,W/2)
 *
 * Form SUPPORT_MEAN gives mean; SUPPORT_MEAN_POOL gives mean, pooled_mean and pooled; SUPPORT_MEAN_CONV_POOL gives the
 * same from the raw support (1,K,S,2,H,W) by the first block's composed convolution (C,2,5,5) with its border
 * correction (C,2,24), both float32. support_term, query_term and the outputs have one storage type; all arithmetic is
 * float32. The same input, problem and device give the same bits.
 *
 * With SUPPORT_MEAN_CHANNELS_LAST the maps of support_term, query_term and the outputs are (H,W,C) and (H/2,W/2,C), for
 * the first two forms; all else is as above.
 *
 * Every function returns a support_mean_status and, unless it is SUPPORT_MEAN_OK, writes one line that says what was
 * given, what is accepted and the cure into `message` (may be NULL). Nothing is launched for input that is refused.
 */
#ifndef UNIVERSEG_SUPPORT_MEAN_H
#define UNIVERSEG_SUPPORT_MEAN_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define SUPPORT_MEAN_API __declspec(dllexport)
#else
#define SUPPORT_MEAN_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef enum support_mean_status {
    SUPPORT_MEAN_OK = 0,
    SUPPORT_MEAN_INVALID = 1,     /* shapes, attributes or buffers that do not fit */
    SUPPORT_MEAN_UNSUPPORTED = 2, /* valid, but no kernel here serves it */
    SUPPORT_MEAN_CUDA = 3         /* a CUDA call failed; the message names the call and the error */
} support_mean_status;

typedef enum support_mean_form { SUPPORT_MEAN = 0, SUPPORT_MEAN_POOL = 1, SUPPORT_MEAN_CONV_POOL = 2 } support_mean_form;

typedef enum support_mean_dtype {
    SUPPORT_MEAN_FLOAT32 = 0,
    SUPPORT_MEAN_FLOAT16 = 1,
    SUPPORT_MEAN_BFLOAT16 = 2
} support_mean_dtype;

typedef enum support_mean_layout { SUPPORT_MEAN_CHANNELS_FIRST = 0, SUPPORT_MEAN_CHANNELS_LAST = 1 } support_mean_layout;

typedef struct support_mean_problem {
    uint32_t struct_size; /* sizeof(support_mean_problem): refuses a caller built with another version of this file */
    int32_t form;         /* support_mean_form */
    int32_t dtype;        /* support_mean_dtype */
    int32_t kernel;       /* 0: the fastest that serves the shape; else a kernel's number (README.md) */
    int32_t activated;    /* 1: also write activated; 0: do not */
    int32_t layout;       /* support_mean_layout */
    float negative_slope; /* in (0, 1] */
    int64_t queries, support_queries, sets, query_sets, entries, channels, height, width; /* B Bs K Kq S C H W */
} support_mean_problem;

typedef struct support_mean_buffer {
    void *data;   /* device memory, a multiple of 16 bytes; NULL where the form or the caller has no such buffer */
    size_t bytes; /* what may be used from `data` on */
} support_mean_buffer;

typedef struct support_mean_buffers {
    support_mean_buffer support, query, weights, convolution, border;  /* inputs */
    support_mean_buffer mean, pooled_mean, pooled, activated;          /* outputs */
} support_mean_buffers;

/* How a problem is launched; the same for the same problem, output set and number of multiprocessors. */
typedef struct support_mean_launch {
    int32_t kernel;       /* the number that was chosen or asked for */
    int32_t vector;       /* elements of one access */
    int32_t slices;       /* parts of the support that different threads of a block sum */
    int32_t group;        /* queries that one thread serves */
    uint32_t tiles, groups, blocks;
    uint32_t threads_x, threads_y, shared_bytes;
} support_mean_launch;

/* Refuses what support_mean_run would refuse; makes no CUDA call. `buffers` may be NULL: only the problem is checked. */
SUPPORT_MEAN_API int support_mean_check(const support_mean_problem *problem, const support_mean_buffers *buffers,
                                        char *message, size_t message_size);

/* Fills `bytes` of every buffer, 0 for those that the problem does not have, and leaves `data` alone. */
SUPPORT_MEAN_API int support_mean_sizes(const support_mean_problem *problem, support_mean_buffers *buffers,
                                        char *message, size_t message_size);

/* The launch for a device with this many multiprocessors; makes no CUDA call. */
SUPPORT_MEAN_API int support_mean_plan(const support_mean_problem *problem, int32_t multiprocessors,
                                       support_mean_launch *launch, char *message, size_t message_size);

/* Checks, then enqueues one kernel on `stream` (a cudaStream_t; NULL is the default stream) of the current device.
 * Reports an error that an earlier CUDA call left behind instead of launching over it. */
SUPPORT_MEAN_API int support_mean_run(const support_mean_problem *problem, const support_mean_buffers *buffers,
                                      void *stream, char *message, size_t message_size);

SUPPORT_MEAN_API const char *support_mean_status_name(int status);
SUPPORT_MEAN_API const char *support_mean_version(void);

#ifdef __cplusplus
}
#endif

#endif
