/*
 * A run's life:
 *
 *              slot         STARTED                 output at its end,       exited
 *    WAITING ------> STARTING ------> RUNNING ------------------------> OVER
 *       |                | REFUSED                                        ^
 *       | stop           +------------------------------------------------+
 *       +------------------------------------------------------------------
 *
 * The program's output is at its end when all that hold its pipe have closed it. Mostly that is its exit. Two cases are
 * not: a program that closes its output and works on is waited for, its response not (GRACE_CLOSED_US); and a program
 * that exits while a child of it keeps the pipe open ends its response once that is silent (GRACE_EXITED_US).
 */
#include "cgi/cgi.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buffer.h"
#include "base/clock.h"
#include "base/holders.h"
#include "base/memory.h"
#include "base/places.h"
#include "cgi/environment.h"
#include "gateway/queue.h"
#include "log.h"

enum {
    SCRATCH = 65536,
    GRACE_CLOSED_MS = 250,
    GRACE_EXITED_MS = 1000,
    QUEUE_MOST = 200000, /* whatever else may be; holders_is_full() knows the limit */
};

enum cgi_state {
    CGI_WAITING,
    CGI_STARTING,
    CGI_RUNNING,
    CGI_EXITED, /* ... or was never started, nor will be */
};

struct cgi_run {
    struct run run;
    struct queue_entry entry;
    TAILQ_ENTRY(cgi_run) next;
    struct cgi *cgi;
    uint32_t id;
    enum cgi_state state;
    int in_fd, out_fd, err_fd; /* -1: closed */
    struct event *in, *out, *err, *grace;
    struct buffer input; /* what the pipe did not take */
    struct {
        bool last_input : 1; /* no more will be fed: close it when all is written */
        bool input_full : 1; /* the gateway was told "enough" */
        bool has_slot : 1;
        bool is_stopped : 1;   /* nobody wants the output */
        bool is_completed : 1; /* the gateway was told that the output is at its end */
        bool end_sent : 1;
        bool is_paused : 1;
    } is;
    struct run_result result;
    char why[160];
};

struct cgi {
    struct runner runner; /* first */
    struct borrower borrower;
    struct cgi_options options;
    struct queue queue;
    struct account account;
    TAILQ_HEAD(, cgi_run) runs;
    unsigned n_slots; /* on loan here and not in use */
    unsigned n_owed;  /* recalled, to be returned when free */
    bool is_yielding; /* what no request waits for goes back */
    uint32_t last_id;
    int null_fd;
    struct holders holders; /* what is told when the queue is full, or has been for too long */
    char scratch[SCRATCH];
};

/* ---- slots ---- */

static void tell_if_nobody_waits(struct cgi *cgi)
{
    if (cgi->queue.n == 0)
        link_want(cgi->options.link, cgi->options.number, 0, false);
}

static void begin(struct cgi_run *run);

/* Slots that are free go to where they were recalled for, then to those that wait; what nobody needs goes back, too,
 * when the front drains. */
static void use_slots(struct cgi *cgi)
{
    unsigned owed = cgi->n_owed < cgi->n_slots ? cgi->n_owed : cgi->n_slots;
    unsigned back = cgi->is_yielding && cgi->queue.n == 0 ? cgi->n_slots : owed;

    if (back > 0) {
        cgi->n_owed -= owed;
        cgi->n_slots -= back;
        link_give(cgi->options.link, MESSAGE_RETURN, cgi->options.number, 0, back, owed);
        link_still_want(cgi->options.link, cgi->options.number, cgi->queue.n, false);
    }
    while (cgi->n_slots > 0) {
        struct queue_entry *entry = queue_take(&cgi->queue);

        if (entry == NULL)
            return;
        struct cgi_run *run = (struct cgi_run *)((char *)entry - offsetof(struct cgi_run, entry));
        begin(run);
        tell_if_nobody_waits(cgi);
        run->run.up->granted(run->run.arg);
    }
}

/* ---- ends ---- */

static void close_event(struct event **event, int *fd)
{
    if (*event != NULL)
        event_free(*event);
    if (*fd >= 0)
        close(*fd);
    *event = NULL;
    *fd = -1;
}

static void close_all(struct cgi_run *run)
{
    close_event(&run->in, &run->in_fd);
    close_event(&run->out, &run->out_fd);
    close_event(&run->err, &run->err_fd);
}

/* Nothing is left to happen: the last upcall, and the slot is free. */
static void finish(struct cgi_run *run)
{
    struct cgi *cgi = run->cgi;

    close_all(run);
    event_free(run->grace);
    buffer_free(&run->input);
    TAILQ_REMOVE(&cgi->runs, run, next);
    cgi->n_slots += run->is.has_slot;
    account_set_active(&cgi->account, cgi->account.n_active - run->is.has_slot);
    run->run.up->ended(run->run.arg, &run->result);
    free(run);
    use_slots(cgi);
}

/* The output was read to its end, or will not be. */
static void output_is_over(struct cgi_run *run)
{
    static const struct timeval closed = {GRACE_CLOSED_MS / 1000, GRACE_CLOSED_MS % 1000 * 1000};

    close_event(&run->out, &run->out_fd);
    if (run->state == CGI_EXITED)
        finish(run);
    else
        event_add(run->grace, &closed);
}

static void on_grace(evutil_socket_t fd, short what, void *arg)
{
    struct cgi_run *run = arg;

    (void)fd, (void)what;
    if (run->state == CGI_EXITED) {
        finish(run);
    } else if (!run->is.is_completed && !run->is.is_stopped) {
        run->is.is_completed = true;
        run->run.up->complete(run->run.arg);
    }
}

static void end_program(struct cgi_run *run)
{
    if (run->is.end_sent)
        return;
    run->is.end_sent = true;
    link_say(run->cgi->options.link, MESSAGE_END, run->cgi->options.number, run->id, 0);
}

/* ---- pipes ---- */

static void note_started(struct cgi_run *run)
{
    if (run->run.started_us != 0)
        return;
    run->run.started_us = clock_us();
    place_change(run->run.request->place, REQUEST_FIRST, run->run.started_us);
}

static void on_out(evutil_socket_t fd, short what, void *arg)
{
    struct cgi_run *run = arg;
    char *scratch = run->cgi->scratch;
    ssize_t n = read(fd, scratch, SCRATCH);

    (void)what;
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        output_is_over(run);
        return;
    }
    note_started(run);              /* the keeper's word of it is on its way */
    if (run->state == CGI_EXITED) { /* a child of it goes on */
        static const struct timeval exited = {GRACE_EXITED_MS / 1000, GRACE_EXITED_MS % 1000 * 1000};
        event_add(run->grace, &exited);
    }
    if (!run->is.is_stopped)
        run->run.up->output(run->run.arg, (struct span){scratch, (size_t)n}, false);
}

static void on_err(evutil_socket_t fd, short what, void *arg)
{
    struct cgi_run *run = arg;
    char *scratch = run->cgi->scratch;
    ssize_t n = read(fd, scratch, SCRATCH);

    (void)what;
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        close_event(&run->err, &run->err_fd);
        return;
    }
    run->run.up->errors(run->run.arg, (struct span){scratch, (size_t)n});
}

/* What is still in the pipe when the program has exited belongs to its request. */
static void read_last_errors(struct cgi_run *run)
{
    ssize_t n = run->err_fd >= 0 ? read(run->err_fd, run->cgi->scratch, SCRATCH) : 0; /* a pipe holds no more */

    if (n > 0)
        run->run.up->errors(run->run.arg, (struct span){run->cgi->scratch, (size_t)n});
}

/* Writes what waits. A program that does not read its input is no error: what it does not want is dropped. */
static void write_input(struct cgi_run *run)
{
    while (buffer_len(&run->input) > 0 && run->in_fd >= 0) {
        ssize_t n = write(run->in_fd, buffer_at(&run->input), buffer_len(&run->input));

        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            event_add(run->in, NULL);
            return;
        }
        if (n < 0) {
            close_event(&run->in, &run->in_fd);
            buffer_clear(&run->input);
            break;
        }
        buffer_consume(&run->input, (size_t)n);
    }
    if (run->is.last_input)
        close_event(&run->in, &run->in_fd);
}

static void on_in(evutil_socket_t fd, short what, void *arg)
{
    struct cgi_run *run = arg;

    (void)fd, (void)what;
    write_input(run);
    if (buffer_len(&run->input) > 0 || !run->is.input_full)
        return;
    run->is.input_full = false;
    if (!run->is.is_stopped)
        run->run.up->drained(run->run.arg);
}

/* ---- starting ---- */

/* A pipe whose end `ours` (0 or 1) does not block. The other's must: programs expect it. */
static int make_pipe(int fds[2], int ours)
{
    if (pipe2(fds, O_CLOEXEC) != 0)
        return -errno;
    return fcntl(fds[ours], F_SETFL, O_NONBLOCK) == 0 ? 0 : -errno;
}

/* The environment block, in a file that the keeper reads. */
static int environment_file(const struct cgi_run *run)
{
    struct buffer block = {0};
    int fd = memfd_create("environment", MFD_CLOEXEC);

    run->run.request->each_variable(run->run.request, environment_add, &block);
    if (fd >= 0 && write(fd, buffer_at(&block), buffer_len(&block)) != (ssize_t)buffer_len(&block)) {
        close(fd);
        fd = -1;
    }
    buffer_free(&block);
    return fd;
}

static void set_events(struct cgi_run *run)
{
    struct event_base *base = run->cgi->options.base;

    run->out = event_new(base, run->out_fd, EV_READ | EV_PERSIST, on_out, run);
    run->err = event_new(base, run->err_fd, EV_READ | EV_PERSIST, on_err, run);
    event_add(run->out, NULL);
    event_add(run->err, NULL);
    if (run->in_fd >= 0)
        run->in = event_new(base, run->in_fd, EV_WRITE, on_in, run);
}

/* Makes the descriptors: ours in the run, the program's in `theirs`. 0, or -1: none is left open. */
static int make_descriptors(struct cgi_run *run, int theirs[4])
{
    int in[2] = {-1, -1}, out[2] = {-1, -1}, err[2] = {-1, -1};
    bool has_input = run->run.request->has_input;

    if (has_input ? make_pipe(in, 1) != 0 : (in[0] = fcntl(run->cgi->null_fd, F_DUPFD_CLOEXEC, 3)) < 0)
        goto fail;
    if (make_pipe(out, 0) != 0 || make_pipe(err, 0) != 0 || (theirs[3] = environment_file(run)) < 0)
        goto fail;
    run->in_fd = in[1];
    run->out_fd = out[0];
    run->err_fd = err[0];
    theirs[0] = in[0];
    theirs[1] = out[1];
    theirs[2] = err[1];
    return 0;
fail:
    for (int i = 0; i < 2; i++) {
        close(in[i]);
        close(out[i]);
        close(err[i]);
    }
    return -1;
}

/* It has a slot. A start that fails already here is told like one that the keeper refuses: from the loop. */
static void begin(struct cgi_run *run)
{
    struct cgi *cgi = run->cgi;
    struct message message = {.kind = MESSAGE_RUN, .pool = cgi->options.number, .id = run->id};
    struct span script = run->run.request->script;
    static const struct timeval at_once = {0, 0};
    int theirs[4];

    run->run.is_granted = true;
    run->run.granted_us = clock_us();
    run->state = CGI_STARTING;
    run->is.has_slot = true;
    cgi->n_slots--;
    account_set_active(&cgi->account, cgi->account.n_active + 1);
    place_change(run->run.request->place, REQUEST_START, run->run.granted_us);
    if (script.len >= sizeof message.text || make_descriptors(run, theirs) != 0) {
        run->result.cause = RUN_BROKEN;
        run->result.why = "no descriptors are left for its pipes";
        run->state = CGI_EXITED;
        event_add(run->grace, &at_once);
        return;
    }
    memcpy(message.text, script.at, script.len);
    message.text_len = script.len;
    set_events(run);
    link_send(cgi->options.link, &message, theirs, 4);
}

/* ---- what the keeper says ---- */

static struct cgi_run *find(struct cgi *cgi, uint32_t id)
{
    struct cgi_run *run;

    TAILQ_FOREACH(run, &cgi->runs, next)
    if (run->id == id)
        return run;
    return NULL;
}

/* What passes by itself is no fault of the script. ELOOP is links when it is said of the name that was asked for, and
 * interpreters of interpreters when exec said it. */
static enum run_cause cause_of(int error, bool by_name)
{
    switch (error) {
    case EACCES:
    case EXDEV:
        return RUN_FORBIDDEN;
    case ELOOP:
        return by_name ? RUN_FORBIDDEN : RUN_BROKEN;
    case ENOENT:
    case ENOTDIR:
    case ENAMETOOLONG:
        return by_name ? RUN_MISSING : RUN_BROKEN;
    case EAGAIN:
    case EUSERS:
    case ENOMEM:
    case EMFILE:
    case ENFILE:
    case ETXTBSY:
    case ETIMEDOUT:
        return RUN_DOWN;
    default:
        return RUN_BROKEN;
    }
}

static void on_refused(struct cgi_run *run, const struct message *message)
{
    static char why[MESSAGE_MAX_TEXT];

    memcpy(why, message->text, message->text_len + 1);
    run->result.why = why;
    run->result.cause = cause_of(message->status, message->n != 0);
    finish(run);
}

static void on_exited(struct cgi_run *run, const struct message *message)
{
    static const struct timeval grace = {GRACE_EXITED_MS / 1000, GRACE_EXITED_MS % 1000 * 1000};
    int status = message->status;

    run->state = CGI_EXITED;
    run->result.cpu_us = message->cpu_us;
    run->result.max_rss_kib = message->max_rss_kib;
    run->result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    run->result.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    run->result.cause = run->result.signal != 0 ? RUN_CRASHED : RUN_COMPLETE;
    if (run->result.signal != 0) {
        snprintf(run->why, sizeof run->why, "%.*s", (int)sizeof run->why - 1, message->text);
        run->result.why = run->why;
    }
    if (run->is.is_stopped)
        run->result.cause = RUN_STOPPED;
    close_event(&run->in, &run->in_fd);
    read_last_errors(run);
    if (run->out_fd < 0 || run->is.is_stopped)
        finish(run);
    else if (!run->is.is_paused)
        event_add(run->grace, &grace);
}

static void receive(struct borrower *borrower, const struct message *message, const int *fds, unsigned n_fds)
{
    struct cgi *cgi = (struct cgi *)((char *)borrower - offsetof(struct cgi, borrower));
    struct cgi_run *run = find(cgi, message->id);

    for (unsigned i = 0; i < n_fds; i++)
        close(fds[i]);
    if (message->kind == MESSAGE_LOAN) {
        cgi->n_slots += message->n;
        use_slots(cgi);
        link_still_want(cgi->options.link, cgi->options.number, cgi->queue.n, false);
    } else if (message->kind == MESSAGE_RECALL) {
        cgi->n_owed += message->n;
        use_slots(cgi);
    } else if (message->kind == MESSAGE_ALONE) {
        link_still_want(cgi->options.link, cgi->options.number, cgi->queue.n, false);
    } else if (run == NULL) {
        return;
    } else if (message->kind == MESSAGE_STARTED) {
        run->state = CGI_RUNNING;
        run->run.pid = message->pid;
        place_set_pid(run->run.request->place, message->pid);
        note_started(run);
    } else if (message->kind == MESSAGE_REFUSED) {
        on_refused(run, message);
    } else if (message->kind == MESSAGE_EXITED) {
        on_exited(run, message);
    }
}

/* ---- what the gateway says ---- */

/* Mostly the pipe takes it all: nothing is copied then. Returns what is left to be written later. */
static struct span write_at_once(struct cgi_run *run, struct span bytes)
{
    ssize_t n = bytes.len > 0 ? write(run->in_fd, bytes.at, bytes.len) : 0;

    if (n < 0 && errno != EAGAIN && errno != EINTR) {
        close_event(&run->in, &run->in_fd);
        return SPAN("");
    }
    return span_from(bytes, n > 0 ? (size_t)n : 0);
}

static bool feed(struct run *base, struct span bytes, bool last)
{
    struct cgi_run *run = (struct cgi_run *)base;

    run->is.last_input |= last;
    if (run->in_fd < 0)
        return false; /* it does not read: the rest is dropped */
    if (buffer_len(&run->input) == 0)
        bytes = write_at_once(run, bytes);
    buffer_append_span(&run->input, bytes);
    if (buffer_len(&run->input) > 0)
        event_add(run->in, NULL);
    else if (last)
        close_event(&run->in, &run->in_fd);
    run->is.input_full = buffer_len(&run->input) > 0;
    return run->is.input_full;
}

static void pause_output(struct run *base)
{
    struct cgi_run *run = (struct cgi_run *)base;

    run->is.is_paused = true;
    if (run->out != NULL)
        event_del(run->out);
    event_del(run->grace);
}

static void resume_output(struct run *base)
{
    static const struct timeval grace = {GRACE_EXITED_MS / 1000, GRACE_EXITED_MS % 1000 * 1000};
    struct cgi_run *run = (struct cgi_run *)base;

    run->is.is_paused = false;
    if (run->out != NULL)
        event_add(run->out, NULL);
    if (run->state == CGI_EXITED)
        event_add(run->grace, &grace);
}

static void stop(struct run *base, bool at_once)
{
    struct cgi_run *run = (struct cgi_run *)base;
    struct cgi *cgi = run->cgi;
    static const struct timeval soon = {0, 0};

    (void)at_once; /* a program that runs for one request alone is of no use any more */
    run->is.is_stopped = true;
    run->result.cause = RUN_STOPPED;
    if (run->state == CGI_WAITING) {
        queue_remove(&cgi->queue, &run->entry);
        tell_if_nobody_waits(cgi);
        run->state = CGI_EXITED;
        event_add(run->grace, &soon);
    } else if (run->state == CGI_EXITED) {
        event_add(run->grace, &soon);
    } else {
        close_event(&run->in, &run->in_fd);
        close_event(&run->out, &run->out_fd);
        end_program(run);
    }
}

static const struct run_down down = {
    .feed = feed,
    .pause = pause_output,
    .resume = resume_output,
    .stop = stop,
};

/* ---- opening ---- */

static void on_expired(struct queue_entry *entry)
{
    struct cgi_run *run = (struct cgi_run *)((char *)entry - offsetof(struct cgi_run, entry));

    const char *told = holders_expired(&run->cgi->holders, run->cgi->options.route->queue_timeout_ms);

    if (told != NULL)
        log_warning("%s", told);
    tell_if_nobody_waits(run->cgi);
    run->result.cause = RUN_QUEUE_TIMEOUT;
    finish(run);
}

static struct run *open_run(struct runner *runner, const struct run_request *request, const struct run_up *up,
                            void *arg, struct run_result *refusal_out)
{
    struct cgi *cgi = (struct cgi *)runner;
    struct cgi_run *run = memory_zeroed(1, sizeof *run);

    run->run = (struct run){.down = &down, .up = up, .arg = arg, .request = request};
    run->cgi = cgi;
    run->id = ++cgi->last_id;
    run->in_fd = run->out_fd = run->err_fd = -1;
    run->result = (struct run_result){.why = "", .exit_code = -1, .cpu_us = UINT64_MAX, .max_rss_kib = UINT64_MAX};
    bool must_wait = cgi->n_slots <= cgi->n_owed || cgi->queue.n > 0; /* free slots may be promised already */

    if (must_wait && (holders_is_full(&cgi->holders, cgi->queue.n, cgi->options.route->queue) ||
                      !queue_add(&cgi->queue, &run->entry))) {
        const char *told = holders_full(&cgi->holders);

        if (told != NULL)
            log_warning("%s", told);
        free(run);
        *refusal_out = (struct run_result){.cause = RUN_QUEUE_FULL, .why = ""};
        return NULL;
    }
    run->grace = evtimer_new(cgi->options.base, on_grace, run);
    TAILQ_INSERT_TAIL(&cgi->runs, run, next);
    if (run->entry.is_waiting) {
        link_want(cgi->options.link, cgi->options.number, cgi->queue.n, false);
        return &run->run;
    }
    begin(run);
    return &run->run;
}

struct cgi *cgi_create(const struct cgi_options *options)
{
    struct cgi *cgi = memory_zeroed(1, sizeof *cgi);

    cgi->options = *options;
    cgi->runner.open = open_run;
    cgi->runner.account = &cgi->account;
    account_init(&cgi->account, options->scoreboard, options->front);
    cgi->borrower.message = receive;
    cgi->null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    TAILQ_INIT(&cgi->runs);
    cgi->holders = (struct holders){.scoreboard = options->scoreboard,
                                    .pool = options->number,
                                    .front = options->front,
                                    .what = "route",
                                    .name = options->route->text};
    queue_init(&cgi->queue, options->base, QUEUE_MOST, options->route->queue_timeout_ms * 1000, on_expired);
    cgi->queue.account = &cgi->account;
    account_open(&cgi->account, options->number, options->route->max_running);
    link_attach(options->link, options->number, &cgi->borrower);
    return cgi;
}

void cgi_destroy(struct cgi *cgi)
{
    for (struct cgi_run *run = TAILQ_FIRST(&cgi->runs), *next; run != NULL; run = next) {
        next = TAILQ_NEXT(run, next);
        queue_remove(&cgi->queue, &run->entry);
        run->result.cause = RUN_STOPPED;
        finish(run);
    }
    account_close(&cgi->account);
    queue_finish(&cgi->queue);
    holders_finish(&cgi->holders);
    close(cgi->null_fd);
    free(cgi);
}

void cgi_yield(struct cgi *cgi)
{
    cgi->is_yielding = true;
    use_slots(cgi);
}

struct runner *cgi_runner(struct cgi *cgi)
{
    return &cgi->runner;
}
