/* opt.c: the option table and what reads it. No state. Refuses values out of range, unknown and ambiguous names, and options
 * whose feature this version does not have: nothing is accepted and ignored. */
#include "opt.h"

#include "base/buf.h"

#include <errno.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum kind { TEXT, INT, REAL, FLAG, CHOICE };

struct row {
    const char *name;    /* without the dashes; the first word of names is shown first */
    const char *aliases; /* blank-separated */
    const char *env;     /* blank-separated, the first that is set counts; NULL: none. A row with an empty name has nothing else */
    enum kind kind;
    size_t at;
    double min, max;     /* INT, REAL */
    const char *arg;     /* how the value is called; CHOICE: "a|b|c" */
    const char *def;     /* text of the default; NULL: none. "auto" for a number is -1 */
    unsigned commands;
    const char *help;
    const char *later;   /* any value but the default is refused with this sentence */
};

#define AT(field) offsetof(struct options, field)
#define CMD_MODEL (CMD_ALL & ~CMD_HELP) /* all that take a model */
/* In place of a sentence in `later`: accepted, and remembered for the run to say that the CPU does without. */
static const char gpu_only[] = "it matters on GPUs only: on the CPU it is named in the log and left aside";

static const struct row rows[] = {
    {"model", "model-path", NULL, TEXT, AT(model), 0, 0, "DIR|NAME", "builtin", CMD_MODEL,
     "the model: a checkpoint folder, or a name such as `Qwen/Qwen3-0.6B`, which is looked up in the cache of downloaded models "
     "and else downloaded; `builtin` is the small help-desk model that comes with the program", NULL},
    {"host", "", NULL, TEXT, AT(host), 0, 0, "ADDRESS", "0.0.0.0", CMD_SERVE, "address to listen on", NULL},
    {"port", "", NULL, INT, AT(port), 0, 65535, "N", "1919", CMD_SERVE,
     "port of the API server; 0 takes a free one and says which", NULL},
    {"api-key", "", "MINISGL_API_KEY", TEXT, AT(api_key), 0, 0, "KEY", NULL, CMD_SERVE,
     "clients must send `Authorization: Bearer KEY`; without it anyone who reaches the port can use the server", NULL},
    {"served-model-name", "", NULL, TEXT, AT(served_model_name), 0, 0, "NAME", NULL, CMD_SERVE,
     "the model's name in the API (default: as given to --model; of a folder its last part); requests may also name what --model was given, or `default`", NULL},
    {"tp", "tp-size tensor-parallel-size", NULL, INT, AT(tp), 1, 64, "N", "1", CMD_TESTS | CMD_TUNE,
     "tensor parallelism: split the model over N GPUs, or over N groups of CPU threads (1, 2, 4 or 8)", NULL},
    {"comm-timeout", "", "NCCL_TIMEOUT", INT, AT(comm_timeout), 1, 86400, "S", "60", CMD_TESTS,
     "seconds that a rank waits for another before all end with an error", NULL},
    {"processes", "", "OMPI_COMM_WORLD_SIZE", INT, AT(processes), 1, 8, "N", "1", CMD_RUNS,
     "processes that share the ranks, one a host; `mpirun -np N minisgl ...` sets it", NULL},
#ifdef MINISGL_FAULTS
    {"fault", "", NULL, TEXT, AT(fault), 0, 0, "RANK:STEP:hang|exit|differ|stall", NULL, CMD_RUNS, "let a rank go wrong, for tests", NULL},
#endif
    {"device", "", NULL, CHOICE, AT(device), 0, 0, "auto|cpu|cuda", "auto", CMD_TESTS,
     "where to compute: `auto` takes the GPU when there is one, else the CPU", NULL},
    {"threads", "", NULL, INT, AT(threads), 1, 1024, "N", "auto", CMD_TESTS,
     "CPU compute threads, of all ranks of this process together, at least one a rank (default: the cores this process may use)", NULL},
    {"devices", "", NULL, TEXT, AT(devices), 0, 0, "I,J,...", NULL, CMD_TESTS,
     "CUDA ordinals of the ranks' GPUs, one a rank (default: rank i computes on GPU i); several ranks on one GPU are a test mode", gpu_only},
    {"gpu-comm", "", NULL, CHOICE, AT(gpu_comm), 0, 0, "auto|p2p|nccl", "auto", CMD_TESTS,
     "how GPU ranks exchange: `p2p`, kernels that read the other GPUs' memory, for the ranks of one process; `nccl`, NVIDIA's library, for one "
     "or several processes; `auto` takes what is there, and of both the faster one for each size", gpu_only},
    {"cpu-isa", "", "MINISGL_CPU_ISA", CHOICE, AT(cpu_isa), 0, 0, "auto|ref|generic|avx2|avx512|avx512bf16", "auto",
     CMD_RUNS, "instruction set of the CPU kernels; `ref` is the slow reference", NULL},
    {"dtype", "", NULL, CHOICE, AT(dtype), 0, 0, "auto|float16|bfloat16|float32", "auto", CMD_RUNS | CMD_DOCTOR,
     "number format of weights; `auto` takes the checkpoint's, another one is converted to on a GPU. `half`, `float` and short names such as "
     "`bf16` are taken too", NULL},
    {"kv-cache-dtype", "", NULL, CHOICE, AT(kv_dtype), 0, 0, "auto|bfloat16|float16|float32|fp8_e4m3", "auto", CMD_RUNS | CMD_DOCTOR,
     "number format of the KV cache; `auto` takes that of the weights. `fp8_e4m3` (or `fp8`) holds twice the tokens of a 16-bit format in the same "
     "memory, without scales, and changes answers a little", NULL},
    {"memory-ratio", "gpu-memory-utilization mem-fraction-static", NULL, REAL, AT(memory_ratio), 0.01, 0.99, "SHARE",
     "0.9", CMD_RUNS | CMD_SIMULATE | CMD_DOCTOR, "share of the free memory that weights and KV cache may take together; lower it when memory is short",
     NULL},
    {"max-running-requests", "max-num-seqs", NULL, INT, AT(max_running), 1, 4096, "N", "256", CMD_RUNS | CMD_SIMULATE | CMD_DOCTOR | CMD_TUNE,
     "requests that are computed at the same time; more wait in the queue", NULL},
    {"max-queued-requests", "", NULL, INT, AT(max_queued), 1, 1000000, "N", "1024", CMD_SERVE,
     "requests that may wait; one more is answered 429 at once", NULL},
    {"max-seq-len-override", "max-model-len context-length", NULL, INT, AT(max_seq_len), 1, 16777216, "N", "auto",
     CMD_RUNS | CMD_SIMULATE | CMD_DOCTOR, "longest sequence, prompt and answer together (default: what the model was made for)", NULL},
    {"max-prefill-length", "max-extend-length chunked-prefill-size max-num-batched-tokens", NULL, INT, AT(max_prefill),
     1, 1048576, "N", "auto", CMD_RUNS | CMD_SIMULATE | CMD_DOCTOR | CMD_TUNE,
     "chunked prefill: prompt tokens computed in one step (default: 8192 on a GPU, 512 on the CPU)", NULL},
    {"page-size", "block-size", NULL, INT, AT(page_size), 1, 256, "N", "16", CMD_RUNS | CMD_SIMULATE | CMD_DOCTOR, "tokens in one page of the KV cache",
     NULL},
    {"num-pages", "", NULL, INT, AT(num_pages), 2, 1000000000, "N", "auto", CMD_RUNS | CMD_SIMULATE,
     "pages of the KV cache (default: what --memory-ratio leaves)", NULL},
    {"schedule-policy", "", NULL, CHOICE, AT(policy), 0, 0, "fcfs|lpm|classic", "fcfs", CMD_RUNS | CMD_SIMULATE,
     "who is admitted next: `fcfs` first come, first served, but at most 8 requests whose prompts cost less may go before an "
     "older one; `lpm` longest cached prefix first; `classic` as Mini-SGLang does it, prompts before answers and every "
     "answer's whole length reserved", NULL},
    {"target-itl", "", NULL, INT, AT(target_itl), 1, 3600000, "MS", "auto", CMD_RUNS | CMD_SIMULATE,
     "prompt chunks are cut so that running streams wait at most this long for their next token (default: 50 ms on a GPU, "
     "500 ms on the CPU)", NULL},
    {"request-timeout", "", NULL, INT, AT(request_timeout), 1, 604800, "S", "auto", CMD_SERVE,
     "seconds after which a request is ended with an error (default: none)", NULL},
    {"overlap", "", NULL, CHOICE, AT(overlap), 0, 0, "auto|on|off", "auto", CMD_RUNS | CMD_SIMULATE,
     "overlap scheduling: plan and start the next step while one runs; `auto`: on a GPU. On the CPU a step is over before "
     "the next can start, so that `on` only makes answers later, by a step", NULL},
    {"disable-overlap-schedule", "", "MINISGL_DISABLE_OVERLAP_SCHEDULING", FLAG, AT(disable_overlap), 0, 0, NULL, NULL,
     CMD_RUNS, "the same as --overlap off; in the environment 1 or 0", NULL},
    {"cache-type", "", NULL, CHOICE, AT(cache_type), 0, 0, "radix|naive", "radix", CMD_RUNS | CMD_SIMULATE,
     "prefix cache: `radix` keeps the beginnings that requests share, `naive` keeps none", NULL},
    {"attention-backend", "attn", NULL, CHOICE, AT(attention), 0, 0, "auto|fa|fi|fa,fi|fi,fa|cudnn|cudnn,fi|cudnn,fa", "auto", CMD_TESTS,
     "attention kernels on a GPU, for prefill and decode: `fa,fi` (`auto`), `fa` for both, or `cudnn,fi` (`cudnn`): NVIDIA's library for prompts "
     "of more tokens than a graph has, which is faster for long ones; it is looked for in the loader's path", gpu_only},
    {"moe-backend", "", NULL, CHOICE, AT(moe_backend), 0, 0, "auto|fused", "auto", CMD_RUNS,
     "kernels of mixture-of-experts models on a GPU", gpu_only},
    {"cuda-graph-max-bs", "graph", NULL, INT, AT(cuda_graph_max_bs), 0, 4096, "N", "auto", CMD_TESTS,
     "largest batch of decodes captured in a CUDA graph (default: 256); steps with prompts are captured up to four times as many tokens, "
     "1024 at most; 0 disables graphs", gpu_only},
    {"product-table", "", NULL, TEXT, AT(products), 0, 0, "FILE", NULL, CMD_RUNS,
     "how matrix products are computed on a GPU, as `minisgl tune` wrote it (default: minisgl/products.txt in ~/.cache where there is one); what it "
     "lacks is taken from the table that comes with the program", gpu_only},
    {"disable-pynccl", "", NULL, FLAG, AT(disable_pynccl), 0, 0, NULL, NULL, CMD_TESTS,
     "NCCL on ordinary memory, without the symmetric windows that Mini-SGLang's PyNCCL has too; p2p is as before", gpu_only},
    {"num-tokenizer", "tokenizer-count", NULL, INT, AT(num_tokenizer), 0, 64, "N", "1", CMD_SERVE,
     "threads that render templates and tokenize long prompts; 0, the default of Mini-SGLang, means 1", NULL},
    {"chat-template", "", NULL, TEXT, AT(chat_template), 0, 0, "FILE", NULL, CMD_RUNS | CMD_TEMPLATE,
     "a Jinja chat template instead of the model's own", NULL},
    {"dummy-weight", "", NULL, FLAG, AT(dummy_weight), 0, 0, NULL, NULL, CMD_TESTS,
     "random weights made from config.json alone: to measure speed without a checkpoint", NULL},
    {"model-source", "", NULL, CHOICE, AT(model_source), 0, 0, "huggingface|modelscope", "huggingface", CMD_MODEL,
     "the hub that a model's name belongs to", NULL},
    {"revision", "", NULL, TEXT, AT(revision), 0, 0, "REV", NULL, CMD_MODEL,
     "branch, tag or commit of a model on the hub (default: main, or master on ModelScope)", NULL},
    {"offline", "", "HF_HUB_OFFLINE TRANSFORMERS_OFFLINE", FLAG, AT(offline), 0, 0, NULL, NULL, CMD_MODEL,
     "download nothing: a model must be a folder or in the cache", NULL},
    {"hf-endpoint", "", "HF_ENDPOINT", TEXT, AT(hf_endpoint), 0, 0, "URL", "https://huggingface.co", CMD_MODEL,
     "address of the Hugging Face hub, or of a mirror of it", NULL},
    {"hf-token", "", "HF_TOKEN HUGGING_FACE_HUB_TOKEN", TEXT, AT(hf_token), 0, 0, "TOKEN", NULL, CMD_MODEL,
     "for private and gated models; better given by the environment, since others can read command lines (default: the file "
     "HF_HOME/token)", NULL},
    {"hf-home", "", "HF_HOME", TEXT, AT(hf_home), 0, 0, "DIR", NULL, CMD_MODEL,
     "where Hugging Face's tools keep their files (default: ~/.cache/huggingface)", NULL},
    {"hf-hub-cache", "", "HF_HUB_CACHE HUGGINGFACE_HUB_CACHE", TEXT, AT(hf_cache), 0, 0, "DIR", NULL, CMD_MODEL,
     "where downloaded models lie, shared with Hugging Face's tools (default: HF_HOME/hub)", NULL},
    {"modelscope-endpoint", "", "MODELSCOPE_ENDPOINT MODELSCOPE_DOMAIN", TEXT, AT(modelscope_endpoint), 0, 0, "URL",
     "https://www.modelscope.cn", CMD_MODEL, "address of ModelScope", NULL},
    {"modelscope-token", "", "MODELSCOPE_API_TOKEN", TEXT, AT(modelscope_token), 0, 0, "TOKEN", NULL, CMD_MODEL,
     "for private models on ModelScope", NULL},
    {"modelscope-cache", "", "MODELSCOPE_CACHE", TEXT, AT(modelscope_cache), 0, 0, "DIR", NULL, CMD_MODEL,
     "where models from ModelScope lie (default: ~/.cache/modelscope)", NULL},
    {"hub-timeout", "", "HF_HUB_DOWNLOAD_TIMEOUT", INT, AT(hub_timeout), 1, 3600, "S", "30", CMD_MODEL,
     "seconds without a byte from the hub after which the connection counts as cut", NULL},
    {"proxy", "", NULL, TEXT, AT(proxy), 0, 0, "URL", NULL, CMD_MODEL,
     "proxy for downloads (default: https_proxy, http_proxy, all_proxy and no_proxy of the environment, as curl takes them)", NULL},
    {"ca-file", "", "SSL_CERT_FILE REQUESTS_CA_BUNDLE CURL_CA_BUNDLE", TEXT, AT(ca_file), 0, 0, "FILE", NULL, CMD_MODEL,
     "certificates to trust when downloading (default: the system's)", NULL},
    {"", "", "HOME", TEXT, AT(home), 0, 0, NULL, NULL, CMD_MODEL, "where ~ is, for the folders above", NULL},
    {"", "", "XDG_CACHE_HOME", TEXT, AT(cache_home), 0, 0, NULL, NULL, CMD_MODEL,
     "instead of ~/.cache, for Hugging Face's files and tables of products", NULL},
    {"shell-mode", "", NULL, FLAG, AT(shell), 0, 0, NULL, NULL, CMD_SERVE, "chat in the terminal instead of serving",
     "the interactive shell comes with a later version; `minisgl generate --model M \"prompt\"` answers one prompt"},
    {"max-connections", "", NULL, INT, AT(max_connections), 1, 65536, "N", "4096", CMD_SERVE,
     "open client connections; more are refused", NULL},
    {"max-body-bytes", "", NULL, INT, AT(max_body), 1024, 1073741824, "N", "33554432", CMD_SERVE,
     "largest request body; a larger one is answered 413", NULL},
    {"log-level", "", "LOG_LEVEL", CHOICE, AT(log_level), 0, 0, "DEBUG|INFO|WARNING|ERROR", "INFO", CMD_ALL & ~CMD_HELP,
     "least important lines that are logged", NULL},
    {"log-format", "", NULL, CHOICE, AT(log_format), 0, 0, "text|json", "text", CMD_ALL & ~CMD_HELP,
     "`json` logs one object a line: time, level, message, and rank where a rank speaks", NULL},
    {"log-prefix", "", NULL, CHOICE, AT(log_prefix), 0, 0, "none|time|rank|time,rank", "none", CMD_ALL & ~CMD_HELP,
     "what text lines begin with", NULL},
    {"raw", "", NULL, FLAG, AT(raw), 0, 0, NULL, NULL, CMD_GENERATE,
     "give the prompt argument to the model as it is, without the chat template", NULL},
    {"decode", "", NULL, FLAG, AT(decode), 0, 0, NULL, NULL, CMD_TOKENIZE, "ids to text instead of text to ids", NULL},
    {"special", "", NULL, FLAG, AT(special), 0, 0, NULL, NULL, CMD_TOKENIZE,
     "add the tokens that the model puts around every text (such as BOS)", NULL},
    {"out", "", NULL, TEXT, AT(out), 0, 0, "DIR", NULL, CMD_DUMMY, "folder to write; must not exist or be empty", NULL},
    {"out", "", NULL, TEXT, AT(out), 0, 0, "FILE", NULL, CMD_TUNE,
     "table to write, or to add to (default: minisgl/products.txt in ~/.cache, where runs look for it)", NULL},
    {"seed", "", NULL, INT, AT(seed), 0, 9007199254740992.0, "N", "0", CMD_DUMMY | CMD_TESTS | CMD_SIMULATE,
     "seed of --dummy-weight, and of made-up requests", NULL},
    {"shard-bytes", "", NULL, INT, AT(shard_bytes), 4096, 1e15, "N", "5000000000", CMD_DUMMY, "largest file to write", NULL},
    {"trace", "", NULL, TEXT, AT(trace), 0, 0, "FILE", NULL, CMD_SIMULATE,
     "requests of a real service: Mooncake's or Qwen-Bailian's JSON lines, or Azure's CSV (default: made-up requests)", NULL},
    {"gpu", "", NULL, CHOICE, AT(gpu), 0, 0, "h100|h200", "h200", CMD_SIMULATE, "the GPU to count with", NULL},
    {"gpus", "", NULL, INT, AT(gpus), 1, 64, "N", "1", CMD_SIMULATE, "how many of them share the model", NULL},
    {"rate-scale", "", NULL, REAL, AT(rate_scale), 0.001, 1000, "FACTOR", "1", CMD_SIMULATE,
     "requests come so many times as fast as the trace says", NULL},
    {"requests", "", NULL, INT, AT(sim_requests), 1, 10000000, "N", "auto", CMD_SIMULATE,
     "stop after so many requests (default: all of the trace; 1000 made-up ones)", NULL},
    {"max-tokens", "", NULL, INT, AT(max_tokens), 1, 1048576, "N", "1024", CMD_SIMULATE,
     "the longest answer each request asks for; the real one is as long as the trace says", NULL},
    {"rate", "", NULL, REAL, AT(rate), 0.001, 1000000, "N", "4", CMD_SIMULATE, "made-up requests a second", NULL},
    {"input-length", "", NULL, INT, AT(input_length), 1, 1048576, "N", "1024", CMD_SIMULATE, "mean of made-up prompts, tokens", NULL},
    {"output-length", "", NULL, INT, AT(output_length), 1, 1048576, "N", "256", CMD_SIMULATE, "mean of made-up answers, tokens", NULL},
    {"shared-prefix", "", NULL, REAL, AT(shared_prefix), 0, 1, "SHARE", "0", CMD_SIMULATE,
     "share of each made-up prompt that begins as all others do", NULL},
    {"plot", "", NULL, TEXT, AT(plot), 0, 0, "FILE", NULL, CMD_SIMULATE, "draw requests and pages over time, as SVG", NULL},
    {"steps", "", NULL, INT, AT(test_steps), 1, 1000000000, "N", "auto", CMD_SELFTEST,
     "run N steps of random requests and compare a sample with the CPU, and all with one rank's where there are several (default: none; without "
     "--model, the operators are tested)", NULL},
    {"json", "", NULL, FLAG, AT(json), 0, 0, NULL, NULL, CMD_SIMULATE | CMD_DOCTOR, "results as JSON", NULL},
    {"json", "", NULL, FLAG, AT(json), 0, 0, NULL, NULL, CMD_HELP, "the option table as JSON", NULL},
    {"markdown", "", NULL, FLAG, AT(markdown), 0, 0, NULL, NULL, CMD_HELP, "the option table as in the README", NULL},
    {"fields", "", NULL, FLAG, AT(fields), 0, 0, NULL, NULL, CMD_HELP, "the table of request fields, as in docs/api.md", NULL},
    {"help", "", NULL, FLAG, AT(help), 0, 0, NULL, NULL, CMD_ALL, "show the options and end", NULL},
};
enum { N_ROWS = sizeof rows / sizeof *rows };
_Static_assert((int)N_ROWS <= (int)OPTIONS_MAX, "struct options has a mark for each row");

/* ---- values ---- */

static bool same(const char *a, const char *b) { return strcasecmp(a, b) == 0; }

/* Other spellings of number formats, as PyTorch and other servers have them. */
static const char *spelled(const char *value) {
    static const char *const also[][2] = {{"half", "float16"}, {"f16", "float16"}, {"fp16", "float16"}, {"bf16", "bfloat16"}, {"float", "float32"},
                                          {"f32", "float32"}, {"fp32", "float32"}, {"fp8", "fp8_e4m3"}};
    for (size_t i = 0; i < sizeof also / sizeof *also; i++)
        if (same(also[i][0], value)) return also[i][1];
    return value;
}

/* Choices that other servers have, refused with a sentence of their own. */
static const struct {
    size_t at;
    const char *value, *why;
} others_have[] = {{AT(kv_dtype), "fp8_e5m2", "not in this version; fp8_e4m3 takes the same memory and is more exact"}};

static const char *why_not(const struct row *r, const char *value) {
    for (size_t i = 0; i < sizeof others_have / sizeof *others_have; i++)
        if (others_have[i].at == r->at && same(others_have[i].value, value)) return others_have[i].why;
    return NULL;
}

/* The choice in the row's "a|b|c" that equals value, whatever its case, as the row spells it; NULL when none. */
static const char *choice(struct options *o, const struct row *r, const char *value) {
    char *to = o->chosen[r - rows];
    for (const char *p = r->arg; *p;) {
        size_t w = strcspn(p, "|");
        if (w == strlen(value) && strncasecmp(p, value, w) == 0) {
            if (w >= sizeof o->chosen[0]) BUG("--%s: the choice '%s' is too long for its place", r->name, value);
            memcpy(to, p, w);
            to[w] = 0;
            return to;
        }
        p += w + (p[w] == '|');
    }
    return NULL;
}

static int set_number(struct options *o, const struct row *r, const char *value, const char *as, struct err *e) {
    char *end;
    errno = 0;
    double x = strtod(value, &end);
    bool plain = end != value && *end == 0 && !errno && isfinite(x) && !strpbrk(value, "xXpPnN ");
    bool whole = r->kind == REAL || (plain && x == floor(x));
    if (!plain || !whole || x < r->min || x > r->max)
        return err_input(e, "%s: expected %s from %.15g to %.15g, found '%s'", as,
                         r->kind == INT ? "a whole number" : "a number", r->min, r->max, value);
    if (r->kind == REAL) *(double *)((char *)o + r->at) = x;
    else *(int64_t *)((char *)o + r->at) = (int64_t)x;
    return 0;
}

/* value: NULL on the command line, where naming it is enough. */
static int set_flag(bool *at, const char *value, const char *as, struct err *e) {
    static const char *const words[] = {"0", "1", "false", "true", "no", "yes", "off", "on"};
    for (size_t i = 0; value && i < sizeof words / sizeof *words; i++)
        if (same(value, words[i])) {
            *at = i & 1;
            return 0;
        }
    if (value) return err_input(e, "%s: expected 1 or 0, found '%s'", as, value);
    *at = true;
    return 0;
}

static int set(struct options *o, const struct row *r, const char *value, const char *as, struct err *e) {
    void *at = (char *)o + r->at;
    switch (r->kind) {
    case FLAG: return set_flag(at, value, as, e);
    case TEXT:
        if (!*value) return err_input(e, "%s: the value is empty", as);
        *(const char **)at = value;
        return 0;
    case CHOICE:
        if (why_not(r, value)) return err_input(e, "%s %s: %s", as, value, why_not(r, value));
        *(const char **)at = choice(o, r, spelled(value));
        return *(const char **)at ? 0 : err_input(e, "%s: expected one of %s, found '%s'", as, r->arg, value);
    case INT:
        if (r->def && same(r->def, "auto") && same(value, "auto")) {
            *(int64_t *)at = -1;
            return 0;
        }
        return set_number(o, r, value, as, e);
    case REAL: return set_number(o, r, value, as, e);
    }
    return 0;
}

static void note_gpu_only(struct options *o, const struct row *r) {
    for (int i = 0; i < o->n_gpu_only; i++)
        if (o->gpu_only[i] == r->name) return;
    if (o->n_gpu_only < (int)(sizeof o->gpu_only / sizeof *o->gpu_only)) o->gpu_only[o->n_gpu_only++] = r->name;
}

static int set_given(struct options *o, const struct row *r, const char *value, const char *as, struct err *e) {
    if (r->later == gpu_only) note_gpu_only(o, r);
    else if (r->later && (r->kind == FLAG || !r->def || !same(value, r->def))) return err_input(e, "%s: %s", as, r->later);
    return set(o, r, value, as, e);
}

/* A flag in the environment: 1 or 0, in the spellings that Hugging Face's tools take too. */
static int flag_value(const char *value, const char *as, bool *on, struct err *e) {
    static const char *const yes[] = {"1", "true", "yes", "on"}, *const no[] = {"0", "false", "no", "off"};
    for (int i = 0; i < 4; i++) {
        if (same(value, yes[i]) || same(value, no[i])) {
            *on = same(value, yes[i]);
            return 0;
        }
    }
    return err_input(e, "%s: expected 1 or 0, found '%s'", as, value);
}

/* The first of a row's environment variables that is set and not empty. */
static int set_from_env(struct options *o, const struct row *r, struct err *e) {
    char name[64];
    for (const char *p = r->env; p && *p;) {
        size_t w = strcspn(p, " ");
        snprintf(name, sizeof name, "%.*s", (int)w, p);
        const char *value = getenv(name);
        bool on = true;
        if (value && *value) {
            if (r->kind == FLAG && flag_value(value, name, &on, e)) return -1;
            return on ? set_given(o, r, value, name, e) : 0;
        }
        p += w + (p[w] == ' ');
    }
    return 0;
}

static int set_defaults(struct options *o, unsigned command, struct err *e) {
    *o = (struct options){0};
    for (int i = 0; i < N_ROWS; i++) {
        const struct row *r = &rows[i];
        if (r->def && set(o, r, r->def, r->name, e)) return -1;
        if ((r->commands & command) && set_from_env(o, r, e)) return -1;
    }
    return 0;
}

/* ---- names ---- */

static bool named(const struct row *r, const char *name, size_t n, bool prefix) {
    const char *lists[] = {r->name, r->aliases};
    for (int i = 0; i < 2; i++)
        for (const char *p = lists[i]; *p;) {
            size_t w = strcspn(p, " ");
            if ((prefix ? w >= n : w == n) && strncmp(p, name, n) == 0) return true;
            p += w + (p[w] == ' ');
        }
    return false;
}

static const struct row *find(unsigned command, const char *name, size_t n, struct err *e) {
    const struct row *hit = NULL;
    struct buf many;
    buf_init(&many, 400);
    for (int prefix = 0; prefix < 2 && !hit; prefix++)
        for (int i = 0; i < N_ROWS; i++) {
            if (!(rows[i].commands & command) || !named(&rows[i], name, n, prefix)) continue;
            buf_addf(&many, "%s--%s", hit ? ", " : "", rows[i].name);
            if (!hit) hit = &rows[i];
            else if (prefix) {
                err_input(e, "--%.*s could be %s, ...: write more of it", (int)n, name, buf_str(&many));
                buf_release(&many);
                return NULL;
            }
        }
    buf_release(&many);
    if (!hit) {
        bool elsewhere = false;
        for (int i = 0; i < N_ROWS; i++) elsewhere |= named(&rows[i], name, n, false);
        err_input(e, elsewhere ? "--%.*s is not an option of this subcommand; `--help` lists them"
                               : "unknown option --%.*s; `--help` lists the options", (int)n, name);
    }
    return hit;
}

static int positional(struct options *o, unsigned command, const char *arg, struct err *e) {
    if (command == CMD_SERVE)
        return err_input(e, "'%s' is no subcommand (`minisgl help` lists them), and options begin with --", arg);
    if (!(command & (CMD_GENERATE | CMD_HELP)) || o->positional)
        return err_input(e, "unexpected argument '%s'; options begin with --", arg);
    o->positional = arg;
    return 0;
}

/* Shells leave the ~ of --model=~/m alone. */
static int expand_home(struct options *o, struct err *e) {
    if (!o->model || o->model[0] != '~' || o->model[1] != '/' || !o->home) return 0;
    int n = snprintf(o->model_path, sizeof o->model_path, "%s%s", o->home, o->model + 1);
    if (n >= (int)sizeof o->model_path) return err_input(e, "--model: the path has %d bytes; at most %zu are taken", n, sizeof o->model_path - 1);
    o->model = o->model_path;
    return 0;
}

int options_parse(struct options *o, unsigned command, int argc, char **argv, struct err *e) {
    if (set_defaults(o, command, e)) return -1;
    bool only_positional = false;
    for (int i = 1; i < argc; i++) {
        const char *arg = argv[i];
        if (only_positional || arg[0] != '-' || !arg[1]) {
            if (positional(o, command, arg, e)) return -1;
            continue;
        }
        if (strcmp(arg, "--") == 0) {
            only_positional = true;
            continue;
        }
        if (strcmp(arg, "-h") == 0) arg = "--help";
        if (arg[1] != '-') return err_input(e, "unknown option %s; options begin with --", arg);
        const char *name = arg + 2, *value = strchr(name, '=');
        size_t n = value ? (size_t)(value - name) : strlen(name);
        const struct row *r = find(command, name, n, e);
        if (!r) return -1;
        o->given[r - rows] = true;
        char as[64]; /* an alias as it was typed, the whole name of what was abbreviated */
        bool whole = named(r, name, n, false);
        snprintf(as, sizeof as, "--%.*s", whole ? (int)n : (int)strlen(r->name), whole ? name : r->name);
        if (r->kind == FLAG && value) return err_input(e, "%s takes no value", as);
        if (r->kind != FLAG && value) value++;
        if (r->kind != FLAG && !value) {
            if (i + 1 >= argc) return err_input(e, "%s needs a value: %s", as, r->arg);
            value = argv[++i];
        }
        if (set_given(o, r, value, as, e)) return -1;
    }
    return expand_home(o, e);
}

bool options_given(const struct options *o, const char *name) {
    for (int i = 0; i < N_ROWS; i++)
        if (!strcmp(rows[i].name, name) && o->given[i]) return true;
    return false;
}

/* ---- documentation ---- */

static void print_wrapped(FILE *to, const char *text, int indent) {
    int col = indent;
    for (const char *p = text; *p;) {
        size_t w = strcspn(p, " ");
        if (col + (int)w > 100 && col > indent) col = fprintf(to, "\n%*s", indent, "") - 1;
        col += fprintf(to, "%.*s ", (int)w, p);
        p += w + (p[w] == ' ');
    }
    fputc('\n', to);
}

/* " (environment: A, B)" of a row. */
static void add_env(struct buf *b, const struct row *r, const char *quote) {
    for (const char *p = r->env; p && *p;) {
        size_t w = strcspn(p, " ");
        buf_addf(b, "%s%s%.*s%s", p == r->env ? " (environment: " : ", ", quote, (int)w, p, quote);
        p += w + (p[w] == ' ');
    }
    if (r->env) buf_addc(b, ')');
}

void options_help(FILE *to, unsigned command, const char *usage) {
    fprintf(to, "%s\n\noptions:\n", usage);
    for (int i = 0; i < N_ROWS; i++) {
        const struct row *r = &rows[i];
        if (!(r->commands & command)) continue;
        if (*r->name) fprintf(to, "  --%s%s%s", r->name, r->arg ? " " : "", r->arg ? r->arg : "");
        else fprintf(to, "  (environment)");
        for (const char *p = r->aliases; *p;) {
            size_t w = strcspn(p, " ");
            fprintf(to, ", --%.*s", (int)w, p);
            p += w + (p[w] == ' ');
        }
        fprintf(to, "\n        ");
        struct buf b;
        buf_init(&b, 4096);
        buf_adds(&b, r->help);
        if (r->def) buf_addf(&b, " [%s]", r->def);
        add_env(&b, r, "");
        if (r->later) buf_addf(&b, " (%s%s)", r->later == gpu_only ? "" : "not in this version: ", r->later);
        print_wrapped(to, buf_str(&b), 8);
        buf_release(&b);
    }
}

static const struct {
    unsigned bit;
    const char *name;
} commands[] = {{CMD_SERVE, "serve"}, {CMD_GENERATE, "generate"}, {CMD_TOKENIZE, "tokenize"},
                {CMD_TEMPLATE, "template"}, {CMD_DUMMY, "dummy"}, {CMD_SIMULATE, "simulate"}, {CMD_DOCTOR, "doctor"}, {CMD_SELFTEST, "selftest"}, {CMD_TUNE, "tune"}, {CMD_HELP, "help"}};

static void add_json_field(struct buf *b, const char *name, const char *value) {
    buf_addf(b, ",\"%s\":", name);
    if (value) buf_add_json(b, value, strlen(value));
    else buf_adds(b, "null");
}

void options_json(FILE *to) {
    struct buf b;
    buf_init(&b, 1 << 20);
    for (int i = 0; i < N_ROWS; i++) {
        const struct row *r = &rows[i];
        buf_addf(&b, "%s{\"name\":\"%s%s\",\"aliases\":[", i ? ",\n " : "[", *r->name ? "--" : "", r->name);
        for (const char *p = r->aliases; *p;) {
            size_t w = strcspn(p, " ");
            buf_addf(&b, "%s\"--%.*s\"", p == r->aliases ? "" : ",", (int)w, p);
            p += w + (p[w] == ' ');
        }
        buf_adds(&b, "],\"commands\":[");
        bool first = true;
        for (size_t c = 0; c < sizeof commands / sizeof *commands; c++)
            if (r->commands & commands[c].bit) {
                buf_addf(&b, "%s\"%s\"", first ? "" : ",", commands[c].name);
                first = false;
            }
        buf_addc(&b, ']');
        add_json_field(&b, "arg", r->arg);
        add_json_field(&b, "default", r->def);
        add_json_field(&b, "env", r->env);
        add_json_field(&b, "help", r->help);
        add_json_field(&b, "not_in_this_version", r->later == gpu_only ? NULL : r->later);
        buf_addf(&b, ",\"gpu_only\":%s", r->later == gpu_only ? "true" : "false");
        buf_addc(&b, '}');
    }
    fprintf(to, "%s]\n", buf_str(&b));
    buf_release(&b);
}

static void print_cell(FILE *to, const char *s) {
    for (; *s; s++) {
        if (*s == '|') fputc('\\', to);
        fputc(*s, to);
    }
}

void options_markdown(FILE *to) {
    fprintf(to, "| option | default | what it does |\n| --- | --- | --- |\n");
    for (int i = 0; i < N_ROWS; i++) {
        const struct row *r = &rows[i];
        if (!(r->commands & CMD_RUNS) || r->at == AT(help)) continue;
        fprintf(to, *r->name ? "| `--%s%s" : "| (environment)%s%s", r->name, r->arg ? " " : "");
        if (r->arg) print_cell(to, r->arg);
        fprintf(to, *r->name ? "`" : "");
        for (const char *p = r->aliases; *p;) {
            size_t w = strcspn(p, " ");
            fprintf(to, ", `--%.*s`", (int)w, p);
            p += w + (p[w] == ' ');
        }
        fprintf(to, " | %s%s%s | ", r->def ? "`" : "", r->def ? r->def : "", r->def ? "`" : "");
        print_cell(to, r->help);
        struct buf env;
        buf_init(&env, 1000);
        add_env(&env, r, "`");
        fputs(buf_str(&env), to);
        buf_release(&env);
        if (r->later) {
            fprintf(to, " — *%s", r->later == gpu_only ? "" : "not in this version: ");
            print_cell(to, r->later);
            fputc('*', to);
        }
        fprintf(to, " |\n");
    }
}
