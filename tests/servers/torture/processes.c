/* Processes: storms of forks with threads and pipes, locks in memory that processes share. */
#include "torture.h"
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <semaphore.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- a storm of forks ---- */

struct storm {
    struct run *run;
    int out; /* all children write here */
};

struct cloud {
    struct storm *storm;
    unsigned number;
    uint64_t sum;
};

struct drop {
    int out;
    uint64_t value;
};

static void *fall(void *argument)
{
    struct drop *drop = argument;
    sched_yield();
    if (write(drop->out, &drop->value, sizeof drop->value) != sizeof drop->value)
        _exit(90);
    return NULL;
}

/* The child: two threads write, one after the other or at once. */
static _Noreturn void rain(const struct storm *storm, uint64_t seed)
{
    struct chance chance = chance_for(seed, 1);
    struct drop drops[2] = {{storm->out, seed}, {storm->out, mixed(seed)}};
    pthread_t threads[2];
    for (unsigned at = 0; at < 2; at++) {
        if (pthread_create(&threads[at], NULL, fall, &drops[at]))
            _exit(91);
        dawdle(&chance);
    }
    for (unsigned at = 0; at < 2; at++)
        if (pthread_join(threads[at], NULL))
            _exit(92);
    _exit((int)(seed % 64));
}

static void *brew(void *argument)
{
    struct cloud *me = argument;
    struct run *run = me->storm->run;
    struct chance chance = chance_for(run->seed, me->number);
    for (unsigned turn = 0; turn < run->count / 16 + 1; turn++) {
        uint64_t seed = chance_next(&chance);
        pid_t child = fork();
        if (child == 0)
            rain(me->storm, seed);
        CHECK(run, child > 0);
        dawdle(&chance);
        int status = -1;
        CHECK(run, waitpid(child, &status, 0) == child);
        CHECK(run, WIFEXITED(status) && WEXITSTATUS(status) == (int)(seed % 64));
        me->sum += seed + mixed(seed);
        event(run, me->number);
    }
    return NULL;
}

struct bucket {
    struct run *run;
    int in;
    uint64_t sum;
};

static void *collect(void *argument)
{
    struct bucket *me = argument;
    uint64_t value;
    while (read(me->in, &value, sizeof value) == sizeof value) {
        me->sum += value;
        event(me->run, value);
    }
    return NULL;
}

static void forks(struct run *run)
{
    enum { CLOUDS = 3 };
    int ends[2];
    CHECK(run, !pipe(ends));
    struct storm storm = {run, ends[1]};
    struct bucket bucket = {run, ends[0], 0};
    struct cloud clouds[CLOUDS];
    pthread_t collector;
    CHECK(run, !pthread_create(&collector, NULL, collect, &bucket));
    for (unsigned at = 0; at < CLOUDS; at++)
        clouds[at] = (struct cloud){&storm, at, 0};
    team(run, CLOUDS, brew, clouds, sizeof *clouds);
    close(ends[1]);
    CHECK(run, !pthread_join(collector, NULL));
    close(ends[0]);
    uint64_t sum = 0;
    for (unsigned at = 0; at < CLOUDS; at++)
        sum += clouds[at].sum;
    CHECK(run, sum == bucket.sum);
    same(run, sum);
}

/* ---- a ring of processes with pipes between them ---- */

static _Noreturn void pass_on(int in, int out, unsigned rounds, uint64_t name)
{
    for (unsigned round = 0; round < rounds; round++) {
        uint64_t token;
        if (read(in, &token, sizeof token) != sizeof token)
            _exit(1);
        token = mixed(token ^ name);
        if (write(out, &token, sizeof token) != sizeof token)
            _exit(2);
    }
    _exit(0);
}

static void ring(struct run *run)
{
    enum { LINKS = 4 };
    int pipes[LINKS + 1][2];
    pid_t children[LINKS];
    for (unsigned at = 0; at <= LINKS; at++)
        CHECK(run, !pipe(pipes[at]));
    for (unsigned at = 0; at < LINKS; at++) {
        children[at] = fork();
        if (children[at] == 0)
            pass_on(pipes[at][0], pipes[at + 1][1], run->count, at);
        CHECK(run, children[at] > 0);
    }
    uint64_t token = run->seed;
    for (unsigned round = 0; round < run->count; round++) {
        CHECK(run, write(pipes[0][1], &token, sizeof token) == sizeof token);
        CHECK(run, read(pipes[LINKS][0], &token, sizeof token) == sizeof token);
    }
    for (unsigned at = 0; at < LINKS; at++) {
        int status = -1;
        CHECK(run, waitpid(children[at], &status, 0) == children[at] && status == 0);
    }
    for (unsigned at = 0; at <= LINKS; at++) {
        close(pipes[at][0]);
        close(pipes[at][1]);
    }
    same(run, token);
}

/* ---- locks that processes share ---- */

enum { SHARERS = 4 };

struct commons {
    pthread_mutex_t lock;
    pthread_cond_t turned;
    pthread_barrier_t barrier;
    pthread_rwlock_t table;
    pthread_spinlock_t spin;
    sem_t permits;
    unsigned turn;
    uint64_t written, spun, taken;
};

static void commons_init(struct run *run, struct commons *commons)
{
    pthread_mutexattr_t mutex;
    pthread_mutexattr_init(&mutex);
    CHECK(run, !pthread_mutexattr_setpshared(&mutex, PTHREAD_PROCESS_SHARED));
    CHECK(run, !pthread_mutex_init(&commons->lock, &mutex));
    pthread_condattr_t condition;
    pthread_condattr_init(&condition);
    CHECK(run, !pthread_condattr_setpshared(&condition, PTHREAD_PROCESS_SHARED));
    CHECK(run, !pthread_cond_init(&commons->turned, &condition));
    pthread_barrierattr_t barrier;
    pthread_barrierattr_init(&barrier);
    CHECK(run, !pthread_barrierattr_setpshared(&barrier, PTHREAD_PROCESS_SHARED));
    CHECK(run, !pthread_barrier_init(&commons->barrier, &barrier, SHARERS));
    pthread_rwlockattr_t table;
    pthread_rwlockattr_init(&table);
    CHECK(run, !pthread_rwlockattr_setpshared(&table, PTHREAD_PROCESS_SHARED));
    CHECK(run, !pthread_rwlock_init(&commons->table, &table));
    CHECK(run, !pthread_spin_init(&commons->spin, PTHREAD_PROCESS_SHARED));
    CHECK(run, !sem_init(&commons->permits, 1, 1));
}

static void take_turn(struct commons *commons, unsigned number)
{
    pthread_mutex_lock(&commons->lock);
    while (commons->turn % SHARERS != number)
        pthread_cond_wait(&commons->turned, &commons->lock);
    commons->turn++;
    pthread_cond_broadcast(&commons->turned);
    pthread_mutex_unlock(&commons->lock);
}

static void use_commons(struct run *run, struct commons *commons, unsigned number)
{
    struct chance chance = chance_for(run->seed, number);
    for (unsigned round = 0; round < run->count; round++) {
        take_turn(commons, number);
        event(run, number);
        dawdle(&chance);
        CHECK(run, !pthread_rwlock_wrlock(&commons->table));
        commons->written++;
        CHECK(run, !pthread_rwlock_unlock(&commons->table));
        CHECK(run, !sem_wait(&commons->permits));
        commons->taken++;
        event(run, number | 16);
        CHECK(run, !sem_post(&commons->permits));
        CHECK(run, !pthread_spin_lock(&commons->spin));
        commons->spun++;
        CHECK(run, !pthread_spin_unlock(&commons->spin));
        int result = pthread_barrier_wait(&commons->barrier);
        if (result == PTHREAD_BARRIER_SERIAL_THREAD)
            event(run, number | 32);
        else
            CHECK(run, result == 0);
        CHECK(run, !pthread_rwlock_rdlock(&commons->table));
        CHECK(run, commons->written >= (round + 1) * SHARERS);
        CHECK(run, !pthread_rwlock_unlock(&commons->table));
    }
}

/* In the mapping that all have, or in another one of the same memory. */
static struct commons *commons_for(struct commons *commons, int memory)
{
    if (memory < 0)
        return commons;
    return mmap(NULL, sizeof *commons, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
}

static void share(struct run *run, struct commons *commons, int memory)
{
    commons_init(run, commons);
    pid_t children[SHARERS - 1];
    for (unsigned at = 0; at < SHARERS - 1; at++) {
        children[at] = fork();
        if (children[at] == 0) {
            struct commons *own = commons;
            /* Each at an address of its own. */
            for (unsigned maps = 0; maps <= at; maps++)
                own = commons_for(commons, memory);
            use_commons(run, own, at);
            _exit(7);
        }
    }
    use_commons(run, commons, SHARERS - 1);
    for (unsigned at = 0; at < SHARERS - 1; at++) {
        int status = -1;
        CHECK(run, waitpid(children[at], &status, 0) == children[at]);
        CHECK(run, WIFEXITED(status) && WEXITSTATUS(status) == 7);
    }
    CHECK(run, !pthread_barrier_destroy(&commons->barrier));
    same(run, commons->turn);
    same(run, commons->written);
    same(run, commons->spun);
    same(run, commons->taken);
    munmap(commons, sizeof *commons);
}

static void shared(struct run *run)
{
    struct commons *commons = mmap(NULL, sizeof *commons, PROT_READ | PROT_WRITE,
                                   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    share(run, commons, -1);
}

static void addresses(struct run *run)
{
    int memory = memfd_create("torture", MFD_CLOEXEC);
    CHECK(run, memory >= 0 && !ftruncate(memory, sizeof(struct commons)));
    share(run, commons_for(NULL, memory), memory);
    close(memory);
}

/* ---- semaphores with names ---- */

static sem_t *named(struct run *run, unsigned number, int flags)
{
    char name[64];
    snprintf(name, sizeof name, "/torture-%llu-%u", (unsigned long long)run->seed, number);
    if (flags < 0) {
        CHECK(run, !sem_unlink(name));
        CHECK(run, sem_unlink(name) && errno == ENOENT);
        return NULL;
    }
    sem_t *semaphore = sem_open(name, flags, 0600, number == 0);
    if (flags & O_EXCL) {
        CHECK(run, sem_open(name, flags, 0600, 0) == SEM_FAILED && errno == EEXIST);
        CHECK(run, sem_open(name, 0) == semaphore && !sem_close(semaphore));
    }
    CHECK(run, semaphore != SEM_FAILED);
    return semaphore;
}

static void relay(struct run *run, sem_t *own, sem_t *next, unsigned number)
{
    for (unsigned round = 0; round < run->count; round++) {
        CHECK(run, !sem_wait(own));
        event(run, number);
        CHECK(run, !sem_post(next));
    }
}

static void names(struct run *run)
{
    sem_t *batons[SHARERS];
    pid_t children[SHARERS];
    for (unsigned at = 0; at < SHARERS; at++)
        batons[at] = named(run, at, O_CREAT | O_EXCL);
    for (unsigned at = 1; at < SHARERS; at++) {
        children[at] = fork();
        if (children[at] == 0) {
            /* One of them by the parent's mapping, the other by an own one. */
            CHECK(run, !sem_close(batons[at]));
            relay(run, named(run, at, 0), batons[(at + 1) % SHARERS], at);
            _exit(0);
        }
    }
    relay(run, batons[0], batons[1], 0);
    int value = -1;
    for (unsigned at = 1; at < SHARERS; at++) {
        int status = -1;
        CHECK(run, waitpid(children[at], &status, 0) == children[at] && status == 0);
    }
    for (unsigned at = 0; at < SHARERS; at++) {
        CHECK(run, !sem_getvalue(batons[at], &value));
        same(run, (uint64_t)value);
        CHECK(run, !sem_close(batons[at]));
        named(run, at, -1);
    }
    CHECK(run, sem_open("/", O_CREAT, 0600, 0) == SEM_FAILED && errno == EINVAL);
    CHECK(run, sem_open("/not/there", 0) == SEM_FAILED && errno == EINVAL);
    CHECK(run, sem_open("/torture-none", 0) == SEM_FAILED && errno == ENOENT);
    same(run, order_of(run));
}

const struct scenario process_scenarios[] = {
    {"forks", forks},         {"ring", ring},   {"shared", shared},
    {"addresses", addresses}, {"names", names}, {NULL, NULL},
};
