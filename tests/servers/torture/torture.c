/* A server that does nothing but torture threads and processes, one scenario for each line it is sent.
 *
 *   SCENARIO SEED COUNT  ->  SCENARIO SEED COUNT same=HEX order=HEX
 *                        or  SCENARIO SEED COUNT FAILED file:line: condition
 *   trace BEHAVIOUR      ->  lines, then "end"
 *   list                 ->  "scenario NAME" and "behaviour NAME" lines, then "end"
 *
 * It knows nothing of replication; the end-to-end tests run it natively and wrapped. */
#include "../server.h"
#include "torture.h"
#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static const struct scenario *const TABLES[] = {
    lock_scenarios, wait_scenarios, thread_scenarios, process_scenarios,
    c11_scenarios,  raw_scenarios,  end_scenarios,
};
enum { TABLES_END = sizeof TABLES / sizeof *TABLES };

/* ---- what the scenarios use ---- */

struct run *run_new(uint64_t seed, unsigned count)
{
    struct run *run = mmap(NULL, sizeof *run, PROT_READ | PROT_WRITE,
                           MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (run == MAP_FAILED)
        abort();
    run->seed = seed;
    run->count = count;
    pthread_mutexattr_t shared;
    pthread_mutexattr_init(&shared);
    pthread_mutexattr_setpshared(&shared, PTHREAD_PROCESS_SHARED);
    pthread_mutex_init(&run->noting, &shared);
    return run;
}

void run_free(struct run *run)
{
    munmap(run, sizeof *run);
}

uint64_t mixed(uint64_t value)
{
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
    value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
    return value ^ (value >> 31);
}

/* Events are a race where threads run beside each other, unless TORTURE_ORDERED is set. */
static bool ordered(void)
{
    static int known; /* 1: no, 2: yes; all threads find the same */
    if (!known)
        known = getenv("TORTURE_ORDERED") ? 2 : 1;
    return known == 2;
}

void event(struct run *run, uint64_t value)
{
    if (ordered())
        pthread_mutex_lock(&run->noting);
    unsigned at = atomic_fetch_add(&run->events, 1);
    if (at < EVENTS_MAX)
        atomic_store(&run->event[at], value);
    if (ordered())
        pthread_mutex_unlock(&run->noting);
}

uint64_t order_of(struct run *run)
{
    unsigned events = atomic_load(&run->events);
    uint64_t digest = events;
    for (unsigned at = 0; at < events && at < EVENTS_MAX; at++)
        digest = mixed(digest ^ atomic_load(&run->event[at])) + at;
    return digest;
}

void same(struct run *run, uint64_t value)
{
    run->same = mixed(run->same ^ value) + 1;
}

void failed(struct run *run, const char *what)
{
    const char *none = NULL;
    atomic_compare_exchange_strong(&run->failure, &none, what);
}

struct chance chance_for(uint64_t seed, uint64_t stream)
{
    return (struct chance){mixed(seed) ^ mixed(stream + 0x9e37u)};
}

uint64_t chance_next(struct chance *chance)
{
    chance->state += 0x9e3779b97f4a7c15u;
    return mixed(chance->state);
}

unsigned below(struct chance *chance, unsigned end)
{
    return (unsigned)(chance_next(chance) % end);
}

void dawdle(struct chance *chance)
{
    switch (below(chance, 16)) {
    case 0:
    case 1:
        sched_yield();
        break;
    case 2:
        usleep(below(chance, 20));
        break;
    default:
        break;
    }
}

struct timespec after(clockid_t clock, long ns)
{
    struct timespec now;
    clock_gettime(clock, &now);
    now.tv_nsec += ns;
    now.tv_sec += now.tv_nsec / 1000000000;
    now.tv_nsec %= 1000000000;
    return now;
}

bool not_before(clockid_t clock, struct timespec moment)
{
    struct timespec now;
    clock_gettime(clock, &now);
    if (now.tv_sec != moment.tv_sec)
        return now.tv_sec > moment.tv_sec;
    return now.tv_nsec >= moment.tv_nsec;
}

void team(struct run *run, unsigned many, void *(*start)(void *), void *members, size_t size)
{
    pthread_t threads[TEAM_MAX];
    for (unsigned at = 0; at < many; at++)
        CHECK(run, !pthread_create(&threads[at], NULL, start, (char *)members + at * size));
    for (unsigned at = 0; at < many; at++)
        CHECK(run, !pthread_join(threads[at], NULL));
}

/* ---- the server ---- */

static void torture(FILE *out, const char *name, uint64_t seed, unsigned count)
{
    fprintf(out, "%s %" PRIu64 " %u ", name, seed, count);
    for (unsigned table = 0; table < TABLES_END; table++) {
        for (const struct scenario *it = TABLES[table]; it->name; it++) {
            if (strcmp(it->name, name) != 0)
                continue;
            struct run *run = run_new(seed, count);
            it->run(run);
            const char *failure = atomic_load(&run->failure);
            if (failure)
                fprintf(out, "FAILED %s\n", failure);
            else
                fprintf(out, "same=%016" PRIx64 " order=%016" PRIx64 "\n", run->same,
                        order_of(run));
            run_free(run);
            return;
        }
    }
    fprintf(out, "FAILED: no such scenario\n");
}

static void trace(FILE *out, const char *name)
{
    for (const struct behaviour *it = behaviours; it->name; it++)
        if (strcmp(it->name, name) == 0)
            it->trace(out);
    fprintf(out, "end\n");
}

static void list(FILE *out)
{
    for (unsigned table = 0; table < TABLES_END; table++)
        for (const struct scenario *it = TABLES[table]; it->name; it++)
            fprintf(out, "scenario %s\n", it->name);
    for (const struct behaviour *it = behaviours; it->name; it++)
        fprintf(out, "behaviour %s\n", it->name);
    fprintf(out, "end\n");
}

static void answer(const char *line, FILE *out)
{
    char name[64];
    uint64_t seed;
    unsigned count;
    if (sscanf(line, "trace %63s", name) == 1)
        trace(out, name);
    else if (strcmp(line, "list") == 0)
        list(out);
    else if (sscanf(line, "%63s %" SCNu64 " %u", name, &seed, &count) == 3)
        torture(out, name, seed, count);
    else
        fprintf(out, "FAILED: what is `%s`?\n", line);
}

static bool send_all(int fd, const char *bytes, size_t size)
{
    while (size > 0) {
        ssize_t sent = send(fd, bytes, size, MSG_NOSIGNAL);
        if (sent <= 0)
            return false;
        bytes += sent;
        size -= (size_t)sent;
    }
    return true;
}

static bool reply(int fd, const char *line)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    answer(line, out);
    fclose(out);
    bool sent = send_all(fd, text, size);
    free(text);
    return sent;
}

static void *serve_client(void *argument)
{
    int fd = (int)(intptr_t)argument;
    char buffer[4096];
    size_t have = 0;
    for (;;) {
        char *end = memchr(buffer, '\n', have);
        if (end) {
            *end = 0;
            if (!reply(fd, buffer))
                break;
            have -= (size_t)(end + 1 - buffer);
            memmove(buffer, end + 1, have);
            continue;
        }
        ssize_t got = recv(fd, buffer + have, sizeof buffer - have, 0);
        if (got <= 0)
            break;
        have += (size_t)got;
    }
    close(fd);
    return NULL;
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: torture PORT\n");
        return 2;
    }
    int listener = listen_on(argv[1], 0);
    pthread_attr_t detached;
    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        if (fd < 0)
            continue;
        pthread_t thread;
        if (pthread_create(&thread, &detached, serve_client, (void *)(intptr_t)fd))
            close(fd);
    }
}
