/* fuzz_trace.c: any text as a trace. What is accepted has requests in order of time, with lengths that the simulator
 * may add up. */
#include "sim/trace.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    struct trace t;
    struct err e = {0};
    if (trace_parse(&t, (const char *)data, n, 100, &e)) {
        if (e.kind != ERR_INPUT || !*e.text) abort();
        return 0;
    }
    if (t.n < 1 || t.n > 100) abort();
    for (int32_t i = 0; i < t.n; i++) {
        const struct trace_request *q = &t.req[i];
        if (!(q->at >= 0) || (i && q->at < t.req[i - 1].at)) abort();
        if (q->n_prompt < 1 || q->n_prompt > TRACE_LENGTH_MAX || q->n_out < 1 || q->n_out > TRACE_LENGTH_MAX) abort();
        if (q->n_ids < 0 || q->ids_at + (size_t)q->n_ids > t.n_ids) abort();
        if (q->n_prompt > 4096) continue;
        int32_t tokens[4096];
        trace_tokens(&t, i, tokens);
        if (tokens[q->n_prompt - 1] < 1) abort();
    }
    double hit = trace_best_hit(&t, 16);
    if (!(hit >= 0 && hit <= 1)) abort();
    trace_release(&t);
    return 0;
}
