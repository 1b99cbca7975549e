/* help.c: `minisgl help [SUBCOMMAND] [--json|--markdown|--fields]`, and how every subcommand says what went wrong. */
#include "base/file.h"
#include "base/log.h"
#include "cli/cli.h"
#include "opt.h"
#include "serve/fields.h"

#include <stdio.h>
#include <string.h>

static const char usage[] =
    "usage: minisgl [serve] [options]            serve a model through the OpenAI API\n"
    "       minisgl generate [options] [PROMPT]  answer a prompt, or JSON lines from standard input\n"
    "       minisgl tokenize [options]           JSON strings to token ids, or back\n"
    "       minisgl template [options]           chat messages to the prompt that the model sees\n"
    "       minisgl dummy [options]              write a checkpoint of random weights\n"
    "       minisgl simulate [options]           what clients of a machine would see, by a cost model\n"
    "       minisgl doctor [--model M] [--json]  what this machine has, and which models fit on it\n"
    "       minisgl selftest [options]           the device against a reference: operators, a model, many steps\n"
    "       minisgl tune [--model M] [--tp N]    measure how to compute the model's matrix products on this GPU\n"
    "       minisgl help [SUBCOMMAND] [--json|--markdown|--fields]\n"
    "       minisgl version";

int cli_fail(const struct err *e) {
    log_error("%s", e->text);
    return e->kind == ERR_MACHINE ? 1 : 2;
}

void cli_begin(const struct options *o) {
    static const struct {
        const char *name;
        enum log_level level;
    } levels[] = {{"DEBUG", LOG_DEBUG}, {"INFO", LOG_INFO}, {"WARNING", LOG_WARNING}, {"ERROR", LOG_ERROR}};
    struct log_style style = {.json = !strcmp(o->log_format, "json"),
                              .time = strstr(o->log_prefix, "time") != NULL,
                              .rank = strstr(o->log_prefix, "rank") != NULL};
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++)
        if (!strcmp(levels[i].name, o->log_level)) style.lowest = levels[i].level;
    log_set_style(&style);
    file_map_guard();
}

int cli_help(unsigned command) {
    options_help(stdout, command, usage);
    return 0;
}

static void print_fields(void) {
    struct buf b;
    buf_init(&b, 1 << 20);
    fields_markdown(&b);
    fputs(buf_str(&b), stdout);
    buf_release(&b);
}

int cmd_help(int argc, char **argv) {
    static const struct {
        const char *name;
        unsigned command;
    } subs[] = {{"serve", CMD_SERVE},       {"generate", CMD_GENERATE}, {"tokenize", CMD_TOKENIZE},
                {"template", CMD_TEMPLATE}, {"dummy", CMD_DUMMY},       {"simulate", CMD_SIMULATE},
                {"doctor", CMD_DOCTOR},     {"selftest", CMD_SELFTEST}, {"tune", CMD_TUNE}, {"help", CMD_HELP}};
    struct options o;
    struct err e;
    if (options_parse(&o, CMD_HELP, argc, argv, &e)) return cli_fail(&e);
    unsigned command = CMD_SERVE;
    if (o.positional) {
        command = 0;
        for (size_t i = 0; i < sizeof subs / sizeof *subs; i++)
            if (!strcmp(subs[i].name, o.positional)) command = subs[i].command;
        if (!command) {
            err_input(&e, "there is no subcommand '%s'; `minisgl help` lists them", o.positional);
            return cli_fail(&e);
        }
    }
    if (o.fields + o.json + o.markdown + (o.positional != NULL) > 1) {
        err_input(&e, "help takes one of SUBCOMMAND, --json, --markdown and --fields");
        return cli_fail(&e);
    }
    if (o.fields)
        print_fields();
    else if (o.json)
        options_json(stdout);
    else if (o.markdown)
        options_markdown(stdout);
    else
        options_help(stdout, command, usage);
    return 0;
}
