/* opt.h: the command line and the environment: ONE table (opt.c) that parses, documents (--help, the README's table,
 * `minisgl help --json`) and gives defaults. No other file reads the environment.
 *
 * Accepted spellings: --name value, --name=value, any alias, any unambiguous prefix of a name. The command line wins
 * over the environment, and that over the default. */
#ifndef MINISGL_OPT_H
#define MINISGL_OPT_H
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* Which subcommands take an option. */
enum {
    CMD_SERVE = 1,
    CMD_GENERATE = 2,
    CMD_TOKENIZE = 4,
    CMD_TEMPLATE = 8,
    CMD_DUMMY = 16,
    CMD_HELP = 32,
    CMD_SIMULATE = 64,
    CMD_DOCTOR = 128,
    CMD_SELFTEST = 256,
    CMD_TUNE = 512,
    CMD_RUNS = CMD_SERVE | CMD_GENERATE, /* the ones that run a model */
    CMD_TESTS = CMD_RUNS | CMD_SELFTEST, /* and the one that tries it */
    CMD_ALL = 1023
};

enum { OPTIONS_MAX = 128 };

/* Values; a number of -1 and a NULL string mean "not given: decide" where the table's default says auto or none. */
struct options {
    const char *model, *served_model_name, *chat_template, *model_source;
    const char *dtype, *kv_dtype, *device, *devices, *gpu_comm, *cpu_isa, *attention, *moe_backend, *cache_type, *policy, *log_level, *products;
    const char *log_format, *log_prefix, *fault;
    const char *host, *api_key, *out, *trace, *gpu, *overlap, *plot;
    const char *revision, *hf_token, *hf_endpoint, *hf_home, *hf_cache, *proxy, *ca_file, *home, *cache_home;
    const char *modelscope_token, *modelscope_endpoint, *modelscope_cache;
    int64_t tp, port, threads, num_tokenizer;
    int64_t max_running, max_seq_len, max_prefill, page_size, num_pages, cuda_graph_max_bs, max_queued;
    int64_t comm_timeout, processes, target_itl, request_timeout, max_connections, max_body, seed, shard_bytes;
    int64_t hub_timeout;
    int64_t test_steps;
    int64_t gpus, sim_requests, max_tokens, input_length, output_length; /* simulate */
    double memory_ratio, rate_scale, rate, shared_prefix;
    bool dummy_weight, offline, shell, disable_pynccl, disable_overlap, decode, special, json, markdown, fields, raw, help;
    const char *gpu_only[12]; /* names of given options that a run on the CPU leaves aside */
    int n_gpu_only;
    const char *positional; /* generate: the prompt; help: a subcommand */
    char chosen[OPTIONS_MAX][16]; /* row by row: where the value of a choice lies, so do not copy this struct */
    char model_path[4096]; /* where a model of "~/..." lies */
    bool given[OPTIONS_MAX]; /* row by row of the table: named on the command line; ask options_given */
};

/* Parse argv[1..] for one subcommand. -1: *e says what is wrong (exit code 2). Strings point into argv, the
 * environment, constants, or *o itself. */
int options_parse(struct options *o, unsigned command, int argc, char **argv, struct err *e);

/* Was the option of this name ("seed"; no alias) on the command line, whatever its value? For options that mean nothing
 * without another one: those are refused, not ignored. */
bool options_given(const struct options *o, const char *name);

void options_help(FILE *to, unsigned command, const char *usage); /* --help of one subcommand */
void options_json(FILE *to);                                      /* the table as JSON */
void options_markdown(FILE *to);                                  /* the table for the README */

#endif
