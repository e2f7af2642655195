/* See keeper_stage.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"
#include "keeper_stage.h"
#include "log.h"

/* The clock, for all that is linked with this. */
static uint64_t now_us = 1000000000;

int clock_gettime(clockid_t clock, struct timespec *time)
{
    if (clock != CLOCK_MONOTONIC && clock != CLOCK_MONOTONIC_COARSE)
        return (int)syscall(SYS_clock_gettime, clock, time);
    time->tv_sec = (time_t)(now_us / 1000000);
    time->tv_nsec = (long)(now_us % 1000000 * 1000);
    return 0;
}

void stage_wait(struct stage *stage, unsigned ms)
{
    for (unsigned done = 0; done <= ms; done += 5) {
        event_base_loop(stage->options.base, EVLOOP_NONBLOCK);
        if (done < ms)
            now_us += 5000;
    }
}

static bool is_variable(const struct config_route *route, struct span name)
{
    (void)route, (void)name;
    return true;
}

static bool may_run(const struct config_route *route, struct span script)
{
    (void)route;
    return !span_is(script, SPAN("forbidden.sh"));
}

static void on_send(void *arg, unsigned front, const struct message *message, const int *fds, unsigned n_fds)
{
    struct stage *stage = arg;

    assert_true(n_fds == 0 || message->kind == MESSAGE_LOAN);
    for (unsigned i = 0; i < n_fds; i++)
        close(fds[i]);
    assert_true(stage->n_said < STAGE_MESSAGES);
    stage->said[stage->n_said++] = (struct said){front, *message};
}

static void on_proven(void *arg, const char *why)
{
    struct stage *stage = arg;

    stage->n_proven++;
    snprintf(stage->why, sizeof stage->why, "%s", why != NULL ? why : "");
}

static void write_script(const struct stage *stage, const char *name, const char *text)
{
    char path[128];

    snprintf(path, sizeof path, "%s/%s", stage->folder, name);
    FILE *to = fopen(path, "we");
    assert_non_null(to);
    fputs(text, to);
    assert_int_equal(fclose(to), 0);
    assert_int_equal(chmod(path, 0755), 0);
}

const struct config *stage_config(struct stage *stage, const char *text)
{
    char *errors = NULL;
    size_t len;
    FILE *to = open_memstream(&errors, &len);
    struct config *config = config_parse("test", text, stage->folder, to);

    fclose(to);
    if (config == NULL)
        fail_msg("%s", errors);
    free(errors);
    assert_true(stage->n_configs < STAGE_CONFIGS);
    stage->configs[stage->n_configs++] = config;
    return config;
}

struct binding stage_take(struct stage *stage, const char *text, unsigned first, unsigned n_fronts)
{
    struct binding binding;

    assert_int_equal(pools_bind(stage->pools, stage_config(stage, text), &binding), 0);
    for (unsigned i = first; i < first + n_fronts; i++)
        pools_front_came(stage->pools, i, &binding, false);
    pools_commit(stage->pools, &binding);
    stage->options.scoreboard->generation++;
    return binding;
}

struct pool *stage_pool(const struct stage *stage, const struct binding *binding, const char *name)
{
    for (size_t i = 0; i < binding->config->n_pools; i++)
        if (strcmp(binding->config->pools[i]->name, name) == 0)
            return stage->pools->at[binding->numbers[i]];
    fail_msg("no pool %s", name);
    return NULL;
}

unsigned stage_count(const struct stage *stage, unsigned from, int front, enum message_kind kind,
                     struct message *last_out)
{
    unsigned n = 0;

    for (unsigned i = from; i < stage->n_said; i++) {
        const struct said *said = &stage->said[i];

        if (said->message.kind != kind || (front >= 0 && said->front != (unsigned)front))
            continue;
        n++;
        if (last_out != NULL)
            *last_out = said->message;
    }
    return n;
}

int stage_tell(struct stage *stage, unsigned front, struct message message)
{
    return pools_receive(stage->pools, front, &message, NULL, 0);
}

void stage_tell_of(struct stage *stage, const struct process *process, enum message_kind kind, unsigned n)
{
    struct message message = {.kind = kind, .pool = process->pool->number, .id = process->id, .n = n};

    assert_int_equal(stage_tell(stage, (unsigned)process->holder, message), 0);
}

struct process *stage_process(const struct pool *pool, enum process_state state, unsigned n)
{
    struct process *process;

    TAILQ_FOREACH(process, &pool->processes, next)
    if (process->state == state && n-- == 0)
        return process;
    return NULL;
}

unsigned stage_n(const struct pool *pool, enum process_state state)
{
    unsigned n = 0;

    while (stage_process(pool, state, n) != NULL)
        n++;
    return n;
}

void stage_use(const struct process *process, bool is_over)
{
    struct scoreboard_process *board = process_board(process);

    board->given += !is_over;
    board->served += is_over;
    board->n_active = !is_over;
    board->since_us = clock_us();
}

void stage_reap(struct stage *stage, pid_t pid, bool is_ending, int told_status)
{
    struct rusage usage;
    int status;

    if (!is_ending)
        kill(pid, SIGKILL);
    assert_int_equal(wait4(pid, &status, 0, &usage), pid);
    assert_true(programs_reaped(stage->options.programs, pid, told_status, &usage));
}

unsigned stage_reap_ending(struct stage *stage, struct pool *pool)
{
    struct process *process;
    unsigned n = 0;

    for (; (process = stage_process(pool, PROCESS_ENDING, 0)) != NULL; n++)
        stage_reap(stage, process->program.pid, true, SIGTERM);
    return n;
}

int stage_begin(void **state)
{
    struct stage *stage = memory_zeroed(1, sizeof *stage);

    snprintf(stage->folder, sizeof stage->folder, "/tmp/test_stage-XXXXXX");
    if (mkdtemp(stage->folder) == NULL || chmod(stage->folder, 0755) != 0)
        return -1;
    log_set(-1);
    write_script(stage, "x.sh", "#!/bin/sh\nread line\n"); /* goes on until its input is closed */
    write_script(stage, "forbidden.sh", "#!/bin/sh\n");
    write_script(stage, "app.sh", "#!/bin/sh\nexec sleep 1000\n");
    stage->wards = wards_create();
    stage->options = (struct pools_options){
        .base = event_base_new(),
        .scoreboard = scoreboard_create(),
        .socket_dir = stage->folder,
        .is_variable = is_variable,
        .may_run = may_run,
        .send = on_send,
        .proven = on_proven,
        .arg = stage,
    };
    stage->options.programs = programs_create(stage->options.base, stage->wards);
    stage->pools = pools_create(&stage->options);
    *state = stage;
    return 0;
}

static void end_pool(struct stage *stage, struct pool *pool)
{
    while (!TAILQ_EMPTY(&pool->processes)) {
        struct process *process = TAILQ_FIRST(&pool->processes);

        stage_reap(stage, process->program.pid, false, SIGKILL);
    }
    while (!TAILQ_EMPTY(&pool->runs)) {
        struct run_slot *run = TAILQ_FIRST(&pool->runs);

        stage_reap(stage, run->program.pid, false, SIGKILL);
    }
}

int stage_end(void **state)
{
    static const char *const names[] = {"x.sh", "forbidden.sh", "app.sh"};
    struct stage *stage = *state;
    char path[128];

    pools_stop(stage->pools);
    for (unsigned i = 0; i < stage->pools->n; i++)
        if (stage->pools->at[i] != NULL)
            end_pool(stage, stage->pools->at[i]);
    pools_destroy(stage->pools);
    programs_destroy(stage->options.programs);
    event_base_free(stage->options.base);
    wards_forget(stage->wards);
    munmap(stage->options.scoreboard, sizeof *stage->options.scoreboard);
    for (unsigned i = 0; i < stage->n_configs; i++)
        config_free(stage->configs[i]);
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s", stage->folder, names[i]);
        unlink(path);
    }
    int failed = rmdir(stage->folder);
    free(stage);
    return failed;
}
