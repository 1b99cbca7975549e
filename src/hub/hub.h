/* hub.h: what the parts of hub/ share: where models may be asked for, and what lies there.
 *
 * Two hubs are spoken to, each with its own protocol and its own cache on disk (layout.h):
 *   Hugging Face   GET  /api/models/ORG/NAME/revision/REV?blobs=true   the listing
 *                  GET  /ORG/NAME/resolve/COMMIT/FILE                  a file; large ones are redirected to another
 * host ModelScope     GET  /api/v1/models/ORG/NAME/repo/files?Revision=REV&Recursive=true GET
 * /api/v1/models/ORG/NAME/repo?Revision=REV&FilePath=FILE hub/ reads no environment: the caller hands over everything
 * in struct hub_settings. */
#ifndef MINISGL_HUB_HUB_H
#define MINISGL_HUB_HUB_H
#include <stdbool.h>
#include <stddef.h>

enum hub_source { HUB_HUGGINGFACE, HUB_MODELSCOPE };

/* What of a model is wanted. config.json and generation_config.json always are. */
enum hub_need { HUB_CONFIG = 0, HUB_TEXT = 1 /* tokenizer and chat template */, HUB_WEIGHTS = 2 };

/* Every string is the caller's and outlives the call; NULL: not given. */
struct hub_settings {
    enum hub_source source;
    const char *revision;   /* branch, tag or commit; NULL: the hub's default ("main", "master") */
    const char *token;      /* NULL: for Hugging Face the file HF_HOME/token, where its own tools keep it */
    const char *endpoint;   /* "https://huggingface.co"; a bare host gets https:// in front */
    const char *home;       /* the user's home folder; "~/" in the folders below means it */
    const char *cache_home; /* NULL: HOME/.cache */
    const char *hf_home;    /* NULL: CACHE_HOME/huggingface */
    const char *hf_cache;   /* NULL: HF_HOME/hub */
    const char *ms_cache;   /* NULL: HOME/.cache/modelscope */
    const char *proxy;      /* NULL: as libcurl finds it in the environment */
    const char *ca_file;    /* certificates to trust; NULL: the system's */
    const char *agent;      /* User-Agent */
    bool offline;           /* no connection is made */
    int timeout;            /* seconds without a byte after which a connection counts as cut */
};

enum { HUB_SUM_MAX = 200 };
enum hub_sum { HUB_SUM_NONE, HUB_SUM_GIT /* sha1 of a git blob */, HUB_SUM_SHA256 };

struct hub_file {
    char *name;  /* path in the repository, as the hub says it: not to be used as a local path unless hub_name_safe */
    size_t size; /* SIZE_MAX: unknown */
    char sum[HUB_SUM_MAX + 1]; /* checksum in lower-case hex, or (HUB_SUM_NONE) an opaque ETag; "": unknown */
    enum hub_sum kind;
    char git[41]; /* Hugging Face: the git object that the repository itself holds; "": unknown */
};

struct hub_listing {
    char commit[41]; /* Hugging Face; "" for ModelScope, which names files by revision */
    struct hub_file *v;
    size_t n;
};

#endif
