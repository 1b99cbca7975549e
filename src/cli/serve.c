/* serve.c: `minisgl [serve]`: bind the port, load the model, serve until a signal. */
#include "serve/serve.h"
#include "app.h"
#include "base/clock.h"
#include "base/log.h"
#include "cli/cli.h"
#include "cli/front.h"
#include "version.h"

#include <signal.h>
#include <stdio.h>

static struct serve *serving; /* for the signal handler alone */

static void on_signal(int sig) {
    (void)sig;
    serve_stop(serving);
}

static void catch_signals(void) {
    struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigaction(SIGTERM, &sa, NULL);
    sigaction(SIGINT, &sa, NULL);
}

static void *run_server(void *arg) {
    serve_run(arg);
    return NULL;
}

static void tell_clients(void *server, const struct err *e) { serve_fail(server, e->text); }

int cmd_serve(int argc, char **argv) {
    uint64_t start = clock_ns();
    struct options o;
    struct err e;
    if (options_parse(&o, CMD_SERVE, argc, argv, &e)) return cli_fail(&e);
    if (o.help) return cli_help(CMD_SERVE);
    cli_begin(&o);
    static struct app app; /* its stats outlive every thread */
    if (app_join(&app, &o, &e)) return cli_fail(&e);
    if (app_follows(&app)) return app_follow(&app, &o);
    struct serve_args args = {.host = o.host,
                              .port = (int)o.port,
                              .api_key = o.api_key,
                              .version = MINISGL_VERSION,
                              .text_threads = (int)o.num_tokenizer,
                              .stats = &app.stats,
                              .limits = {.body = (size_t)o.max_body,
                                         .connections = (int)o.max_connections,
                                         .max_waiting = (int)o.max_queued}};
    if (!(serving = serve_open(&args, &e))) return cli_fail(&e);
    /* A model that cannot be served is refused before anyone can connect. While a good one loads the port answers 503, so that a load
     * balancer sees a server that starts. */
    if (app_examine(&app, &o, &e)) {
        serve_close(serving);
        return cli_fail(&e);
    }
    if (serve_listen(serving, &e)) {
        app_abandon(&app, &e);
        serve_close(serving);
        return cli_fail(&e);
    }
    pthread_t io;
    catch_signals();
    if (pthread_create(&io, NULL, run_server, serving)) {
        err_machine(&e, "no thread can be started");
        return cli_fail(&e);
    }
    struct cli_front front;
    app.broken = tell_clients;
    app.broken_arg = serving;
    if (app_open(&app, &o, &e)) {
        serve_stop(serving), serve_stop(serving);
        pthread_join(io, NULL);
        serve_close(serving);
        return cli_fail(&e);
    }
    cli_front_init(&front, &app, &o);
    if (!o.api_key) log_warning("no --api-key: anyone who reaches the port can use this server");
    serve_ready(serving, &front.front);
    log_info("ready %.2f s after the start", (double)(clock_ns() - start) / 1e9);
    pthread_join(io, NULL);
    app_close(&app);
    serve_close(serving);
    cli_front_release(&front);
    log_info("bye");
    return 0;
}
