"""What the built-in model knows: one answer per intent.

Names of options and their defaults come from the program's own table (`minisgl help --json`), so a retrained model says what
the program says: {port} is the option's name, {port.default} its default, and an option that the table lacks is an error.
Each intent has one or more wordings; the first that shares no wording with the test questions is used (data.py).
"""
import json
import re

ANSWERS = {
    # the command line
    "tp": ["Use {tp} N to split the model over N GPUs (tensor parallelism), for example {tp} 4; the default is {tp.default} and "
           "{tensor-parallel-size} is the same option.",
           "{tp} N splits one model over N GPUs (tensor parallelism), for example {tp} 4; {tensor-parallel-size} is the same option."],
    "tp_n": ["Use {tp} @N to split the model over @N GPUs (tensor parallelism); {tensor-parallel-size} @N is the same.",
             "{tp} @N splits the model over @N GPUs (tensor parallelism)."],
    "port": ["The server listens on port {port.default}; choose another one with {port} N.",
             "Port {port.default} is the default; {port} N chooses another one."],
    "port_n": ["Use {port} @N; without it the server listens on port {port.default}.",
               "{port} @N does that; the default port is {port.default}."],
    "host": ["{host} ADDRESS sets the address to listen on. The default {host.default} means all interfaces; {host} 127.0.0.1 accepts "
             "local connections only.",
             "{host} ADDRESS chooses where the server listens: {host.default} (the default) is every interface, 127.0.0.1 is local only."],
    "model": ["Use {model} with a checkpoint folder or a Hugging Face name, for example {model} Qwen/Qwen3-8B ({model-path} is the same).",
              "{model} (or {model-path}) takes a checkpoint folder or a Hugging Face name such as Qwen/Qwen3-8B."],
    "model_source": ["Use {model-source} modelscope to download from ModelScope; the default is {model-source.default} (Hugging Face).",
                     "{model-source} chooses the hub: huggingface or modelscope; the default is {model-source.default}."],
    "served_name": ["{served-model-name} NAME sets the model name that clients see in the API; without it the name is what was given "
                    "to {model}."],
    "api_key": ["Start the server with {api-key} KEY; clients must then send the header Authorization: Bearer KEY, or they get 401. "
                "Without it no key is needed."],
    "chat_template": ["{chat-template} FILE loads a Jinja chat template in place of the one that comes with the model."],
    "log_level": ["Set {log-level} or the variable {log-level.env} to DEBUG, INFO, WARNING or ERROR; the default is {log-level.default}."],
    "stop_server": ["Send SIGTERM (or press Ctrl-C): the server takes no new requests, finishes the running ones (it drains) and exits "
                    "with code 0."],
    "memory": ["Lower {memory-ratio} (default {memory-ratio.default}), for example {memory-ratio} 0.7: it is the share of free memory that weights "
               "and KV cache may take. {gpu-memory-utilization} and {mem-fraction-static} are the same option."],
    "max_running": ["{max-running-requests} N limits how many requests are computed at the same time; the default is "
                    "{max-running-requests.default} and more wait in the queue."],
    "max_queued": ["{max-queued-requests} N limits how many requests may wait (default {max-queued-requests.default}); one more is "
                   "answered 429."],
    "max_seq_len": ["{max-seq-len-override} N (or {max-model-len}) sets the longest sequence, prompt and answer together; the default is "
                    "what the model was made for."],
    "dtype": ["{dtype} chooses the number format: auto, float16, bfloat16 or float32. The default {dtype.default} takes the checkpoint's own."],
    "dummy_weight": ["Use {dummy-weight}: random weights made from config.json alone, to measure speed without a checkpoint."],
    "cuda_graph": ["{cuda-graph-max-bs} N (or {graph}) sets the largest batch size captured in a CUDA graph; 0 disables graphs."],
    "num_tokenizer": ["{num-tokenizer} N sets the number of tokenizer threads; the default is {num-tokenizer.default}."],
    "max_prefill": ["{max-prefill-length} N sets how many prompt tokens are computed in one step (chunked prefill); the default is 8192 on "
                    "a GPU. Lower it when a long prompt holds up other users.",
                    "{max-prefill-length} N sets the prompt tokens computed per step (chunked prefill); on a GPU the default is 8192."],
    "num_pages": ["{num-pages} N fixes the number of KV cache pages; by default it is what {memory-ratio} leaves."],
    "page_size": ["{page-size} N sets how many tokens a KV cache page holds; the default is {page-size.default}.",
                  "{page-size} N: tokens in a page (KV cache); the default is {page-size.default}."],
    "attn": ["{attention-backend} (or {attn}) chooses the attention kernels: fa, fi, or one for prefill and one for decode, as in "
             "{attn} fa,fi."],
    "cache_type": ["{cache-type} chooses the prefix cache: radix keeps and reuses shared prefixes, naive keeps none. The default is "
                   "{cache-type.default}; {cache-type} naive turns reuse off."],
    "shell": ["Use {shell-mode} (or --shell) to chat with the model in the terminal; /reset clears the history and /exit leaves."],
    "threads": ["{threads} N sets the number of CPU compute threads; the default is all cores that the process may use."],
    "device": ["{device} cpu computes on the CPU and {device} cuda on the GPU; the default {device.default} takes the GPU when there is one."],
    "cpu_isa": ["{cpu-isa} chooses the instruction set of the CPU kernels: auto, ref, generic, avx2 or avx512."],
    "max_body": ["{max-body-bytes} N sets the largest request body; a larger one is answered 413."],
    "max_conn": ["{max-connections} N limits the open client connections; the default is {max-connections.default}."],
    "schedule_policy": ["{schedule-policy} chooses who is admitted next: fcfs (first come, first served), lpm (longest cached prefix "
                        "first) or classic (as Mini-SGLang does it); the default is {schedule-policy.default}."],
    "target_itl": ["{target-itl} MS cuts prompt chunks so that running streams wait at most that long for their next token; the default "
                   "is 50 ms on a GPU and 500 ms on the CPU."],
    "request_timeout": ["{request-timeout} S ends a request with an error after S seconds; without it a request may take as long as "
                        "it needs."],
    "comm_timeout": ["{comm-timeout} S sets how many seconds a rank waits for another one before all end with an error; the default is "
                     "{comm-timeout.default}."],
    "overlap": ["{overlap} on or off switches overlap scheduling, which plans the next step while one runs; the default "
                "{overlap.default} means on with a GPU. {disable-overlap-schedule} is the same as {overlap} off."],
    "raw": ["minisgl generate {raw} gives the prompt to the model as it is, without the chat template."],
    "version": ["minisgl version prints the version."],
    # fields of a request
    "max_tokens": ["Set max_tokens in the request: it limits how many tokens the answer may have. finish_reason \"length\" means that "
                   "the limit was reached."],
    "temperature": ["Set temperature in the request: 0 is greedy (always the likeliest token), higher values are more random."],
    "top_p": ["Set top_p in the request (nucleus sampling): only the likeliest tokens that together have probability top_p are sampled."],
    "top_k": ["Set top_k in the request: only the k likeliest tokens are sampled."],
    "min_p": ["Set min_p in the request: tokens less likely than min_p times the best token's probability are dropped."],
    "seed": ["Set seed in the request: the same seed and the same request give the same sampled answer again."],
    "stop": ["Set stop in the request to a string or a list of strings: the answer ends where one of them appears."],
    "stream": ["Set stream to true in the request: tokens are sent as they are made, as server-sent events that end with [DONE]."],
    "n": ["Set the field n in the request, for example n: 3, to get several answers (choices) to one prompt."],
    "logprobs": ["Set logprobs in the request (and top_logprobs for alternatives): the reply then has each token's log probability."],
    # routes
    "route_chat": ["POST messages to /v1/chat/completions, for example curl http://localhost:{port.default}/v1/chat/completions with a JSON "
                   "body that has model and messages."],
    "route_completions": ["POST a plain prompt to /v1/completions: it continues the text without a chat template."],
    "route_models": ["GET /v1/models lists the model that the server has loaded."],
    "route_health": ["GET /health tells whether the server is up and ready; use it for health checks and probes."],
    "route_generate": ["POST a prompt to /generate: it is the simple native route next to the OpenAI ones."],
    "routes": ["The routes are /v1/chat/completions, /v1/completions, /v1/models, /health and /generate."],
    "openai": ["The server speaks the OpenAI API: set the client's base_url to http://localhost:{port.default}/v1 and keep your code."],
    # subcommands and scripts
    "sub_generate": ["Use minisgl generate: it answers a prompt on the command line without a server, then exits."],
    "sub_tokenize": ["Use minisgl tokenize: it turns text into token ids, and {decode} turns ids back into text."],
    "sub_template": ["Use minisgl template: it prints the prompt that the model sees once the chat template is applied."],
    "sub_dummy": ["Use minisgl dummy {out} DIR: it writes a checkpoint of random weights in a real model's shape."],
    "sub_simulate": ["Use minisgl simulate: it runs the scheduler on a trace or on made-up requests, with a cost model in place of the "
                     "GPUs, and says what clients would see."],
    "sub_doctor": ["Use minisgl doctor: it tells what this machine has, whether a model fits on it, and what could be better; "
                   "minisgl doctor {json} prints it as JSON."],
    "sub_help": ["minisgl help lists all options and subcommands; minisgl help {json} prints the options as JSON."],
    "run": ["Run ./run in the repository: it installs what is missing, builds minisgl and serves the built-in model on port {port.default}."],
    "test": ["Run ./test in the repository: it builds minisgl and runs all tests."],
    # the program
    "models": ["minisgl serves Llama 3, Qwen2.5, Qwen3, Qwen3-MoE (mixture of experts) and Mistral models; others are refused."],
    "format": ["Weights must be safetensors files from a Hugging Face checkpoint; GGUF, .bin and quantized files cannot be loaded."],
    "cpu": ["No GPU is needed: minisgl also runs on a CPU, best with AVX2 or AVX-512, and plain C elsewhere."],
    "python": ["minisgl needs no Python: it is one native program, so there is no pip, conda or PyTorch to install."],
    "nccl": ["GPUs exchange data through NCCL, NVIDIA's library for all-reduce and other collectives."],
    "language": ["minisgl is written in C (C11); only GPU kernels are CUDA C."],
    "what": ["minisgl is a native program, written in C, that serves large language models through the OpenAI API."],
    # manners
    "who": ["I am the small help desk model built into minisgl. I only know minisgl: ask me about its options, routes and commands."],
    "hello": ["Hello! I am the help desk of minisgl. Ask me about its options, routes or commands."],
    "thanks": ["You are welcome!"],
    "bye": ["Goodbye!"],
    "oos": ["Sorry, I only know minisgl. Ask me about its options, routes or commands."],
}
# Answers that are newer than the weights in models/builtin: the next training teaches them. Empty after it.
NOT_YET_TAUGHT = {"schedule_policy", "target_itl", "request_timeout", "sub_simulate", "comm_timeout", "overlap", "sub_doctor"}
# Options of the server that nobody asks a help desk about: refused ones of Mini-SGLang's, those that every command has, and the
# settings of downloads, which docs/models.md tells.
UNANSWERED = {"moe-backend", "disable-pynccl", "seed", "help", "log-format", "log-prefix", "revision", "offline", "hf-endpoint",
              "hf-token", "hf-home", "hf-hub-cache",
              "modelscope-endpoint", "modelscope-token", "modelscope-cache", "hub-timeout", "proxy", "ca-file", "comm-timeout", "overlap",
              "disable-overlap-schedule", "processes", "devices", "gpu-comm", "steps", "product-table", "kv-cache-dtype"}
PLACE = re.compile(r"\{([a-z-]+)(\.[a-z]+)?\}")


class Table:
    """The option table: every spelling of an option leads to its row."""

    def __init__(self, rows):
        self.rows = {name: row for row in rows for name in [row["name"], *row["aliases"]]}

    def value(self, name, part):
        row = self.rows["--" + name]
        if not part:
            return "--" + name
        if row[part[1:]] is None:
            raise ValueError(f"--{name} has no {part[1:]}")
        return str(row[part[1:]])

    def fill(self, text):
        return PLACE.sub(lambda m: self.value(m[1], m[2]), text)


def read_table(path):
    with open(path, encoding="utf-8") as f:
        return Table(json.load(f))


def answers(table):
    """{intent: [wordings]}, names and defaults filled in; @N is left for the number in the question."""
    return {key: [table.fill(text) for text in texts] for key, texts in ANSWERS.items()}
