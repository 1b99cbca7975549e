/* model_dir.c: see model_dir.h. No state; the main thread. */
#include "model_dir.h"

#include "base/file.h"
#include "hub/find.h"
#include "model/config.h"
#include "version.h"

#include <stdlib.h>
#include <string.h>

enum { CONFIG_BYTES_MAX = 16 << 20 };

/* Weights are large: a model that this program cannot run is refused before they are downloaded. */
static int check_config(const char *path, struct err *e) {
    char *text;
    size_t n;
    struct config c;
    if (file_read(path, CONFIG_BYTES_MAX, &text, &n, e)) return -1;
    int rc = config_parse(&c, text, n, NULL, 0, e);
    if (!rc) config_release(&c);
    free(text);
    return rc;
}

char *model_dir(const struct options *o, unsigned need, struct err *e) {
    bool huggingface = !strcmp(o->model_source, "huggingface");
    struct hub_settings s = {
        .source = huggingface ? HUB_HUGGINGFACE : HUB_MODELSCOPE,
        .revision = o->revision,
        .token = huggingface ? o->hf_token : o->modelscope_token,
        .endpoint = huggingface ? o->hf_endpoint : o->modelscope_endpoint,
        .home = o->home,
        .cache_home = o->cache_home,
        .hf_home = o->hf_home,
        .hf_cache = o->hf_cache,
        .ms_cache = o->modelscope_cache,
        .proxy = o->proxy,
        .ca_file = o->ca_file,
        .agent = "minisgl/" MINISGL_VERSION,
        .offline = o->offline,
        .timeout = (int)o->hub_timeout,
    };
    return model_find(o->model, need, &s, need & HUB_WEIGHTS ? check_config : NULL, e);
}
