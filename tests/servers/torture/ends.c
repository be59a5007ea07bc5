/* Ends that others have to cope with: cancellation, owners of robust mutexes that die, first threads that
 * leave the others alone, routines that never return. */
#include "torture.h"
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- cancellation ---- */

enum { HOWS = 10 };

struct cell {
    struct run *run;
    pthread_mutex_t lock;
    pthread_cond_t never;
    sem_t empty, ready;
    int silent[2];
    pthread_t sleeper;
    atomic_uint cleaned, unlocked;
};

struct prisoner {
    struct cell *cell;
    unsigned how;
};

static void clean(void *argument)
{
    struct cell *cell = argument;
    atomic_fetch_add(&cell->cleaned, 1);
}

static void clean_and_unlock(void *argument)
{
    struct cell *cell = argument;
    atomic_fetch_add(&cell->unlocked, 1);
    CHECK(cell->run, !pthread_mutex_unlock(&cell->lock));
}

static void wait_for_condition(struct cell *cell)
{
    pthread_mutex_lock(&cell->lock);
    pthread_cleanup_push(clean_and_unlock, cell);
    for (;;)
        pthread_cond_wait(&cell->never, &cell->lock);
    pthread_cleanup_pop(1);
}

/* Not to be cancelled before the mutex is back and cancelling is allowed. */
static void be_deaf(struct cell *cell)
{
    int old;
    CHECK(cell->run, !pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &old));
    CHECK(cell->run, old == PTHREAD_CANCEL_ENABLE);
    usleep(50);
    pthread_testcancel();
    CHECK(cell->run, !sem_post(&cell->ready));
    usleep(50);
    CHECK(cell->run, !pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &old));
    CHECK(cell->run, old == PTHREAD_CANCEL_DISABLE);
    for (;;)
        usleep(10);
}

static void stay(struct prisoner *me)
{
    struct cell *cell = me->cell;
    struct timespec far = after(CLOCK_REALTIME, 900000000);
    char byte;
    switch (me->how) {
    case 0:
        wait_for_condition(cell);
        break;
    case 1:
        sem_wait(&cell->empty);
        break;
    case 2:
        CHECK(cell->run, read(cell->silent[0], &byte, 1) < 0);
        break;
    case 3:
        for (;;)
            sleep(1);
    case 4:
        pthread_join(cell->sleeper, NULL);
        break;
    case 5:
        poll(&(struct pollfd){cell->silent[0], POLLIN, 0}, 1, -1);
        break;
    case 6:
        while (sem_timedwait(&cell->empty, &far))
            far = after(CLOCK_REALTIME, 900000000);
        break;
    case 7:
        for (;;) {
            pthread_testcancel();
            sched_yield();
        }
    case 8:
        be_deaf(cell);
        break;
    default:
        pthread_cancel(pthread_self());
        pthread_testcancel();
    }
    CHECK(cell->run, !"a thread was not cancelled");
}

static void *imprison(void *argument)
{
    struct prisoner *me = argument;
    pthread_cleanup_push(clean, me->cell);
    pthread_cleanup_push(clean, me->cell);
    if (me->how != 8)
        CHECK(me->cell->run, !sem_post(&me->cell->ready));
    stay(me);
    pthread_cleanup_pop(0);
    pthread_cleanup_pop(0);
    return NULL;
}

static void *sleep_on(void *argument)
{
    sem_wait(argument);
    return NULL;
}

static void cell_init(struct cell *cell)
{
    pthread_mutex_init(&cell->lock, NULL);
    pthread_cond_init(&cell->never, NULL);
    sem_init(&cell->empty, 0, 0);
    sem_init(&cell->ready, 0, 0);
    CHECK(cell->run, !pipe(cell->silent));
    CHECK(cell->run, !pthread_create(&cell->sleeper, NULL, sleep_on, &cell->empty));
}

static void cancels(struct run *run)
{
    struct chance chance = chance_for(run->seed, 0);
    for (unsigned turn = 0; turn < run->count / 10 + 1; turn++) {
        struct cell cell = {.run = run};
        struct prisoner prisoners[HOWS];
        pthread_t threads[HOWS];
        cell_init(&cell);
        for (unsigned how = 0; how < HOWS; how++) {
            prisoners[how] = (struct prisoner){&cell, how};
            CHECK(run, !pthread_create(&threads[how], NULL, imprison, &prisoners[how]));
        }
        for (unsigned how = 0; how < HOWS; how++)
            CHECK(run, !sem_wait(&cell.ready));
        for (unsigned at = 0; at < HOWS; at++) {
            unsigned how = (at * 7 + turn) % HOWS;
            dawdle(&chance);
            CHECK(run, how == 9 || !pthread_cancel(threads[how]));
        }
        for (unsigned how = 0; how < HOWS; how++) {
            void *result = NULL;
            CHECK(run, !pthread_join(threads[how], &result));
            CHECK(run, result == PTHREAD_CANCELED);
            event(run, how);
        }
        same(run, atomic_load(&cell.cleaned));
        same(run, atomic_load(&cell.unlocked));
        CHECK(run, !pthread_mutex_trylock(&cell.lock));
        CHECK(run, !sem_post(&cell.empty));
        CHECK(run, !pthread_join(cell.sleeper, NULL));
        close(cell.silent[0]);
        close(cell.silent[1]);
    }
}

/* ---- robust mutexes ---- */

struct estate {
    pthread_mutex_t lock;
    uint64_t worth, deaths, recovered;
};

struct heir {
    struct run *run;
    struct estate *estate;
    unsigned number;
};

static void robust_init(struct run *run, pthread_mutex_t *lock, bool shared)
{
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    CHECK(run, !pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST));
    if (shared)
        CHECK(run, !pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED));
    CHECK(run, !pthread_mutex_init(lock, &attributes));
}

static void inherit(struct run *run, struct estate *estate)
{
    int result = pthread_mutex_lock(&estate->lock);
    if (result == EOWNERDEAD) {
        estate->recovered++;
        CHECK(run, !pthread_mutex_consistent(&estate->lock));
    } else {
        CHECK(run, result == 0);
    }
}

static void *own_and_die(void *argument)
{
    struct heir *me = argument;
    struct chance chance = chance_for(me->run->seed, me->number);
    for (unsigned turn = 0; turn < me->run->count / 4 + 1; turn++) {
        dawdle(&chance);
        inherit(me->run, me->estate);
        me->estate->worth++;
        event(me->run, me->number);
        dawdle(&chance);
        if (below(&chance, 4) == 0) {
            me->estate->deaths++;
            if (below(&chance, 2))
                pthread_exit(NULL);
            return NULL;
        }
        CHECK(me->run, !pthread_mutex_unlock(&me->estate->lock));
    }
    return NULL;
}

static void robust(struct run *run)
{
    enum { HEIRS = 4 };
    struct estate estate = {.worth = 0};
    robust_init(run, &estate.lock, false);
    struct heir heirs[HEIRS];
    for (unsigned at = 0; at < HEIRS; at++)
        heirs[at] = (struct heir){run, &estate, at};
    team(run, HEIRS, own_and_die, heirs, sizeof *heirs);
    inherit(run, &estate);
    CHECK(run, !pthread_mutex_unlock(&estate.lock));
    CHECK(run, estate.recovered == estate.deaths);
    same(run, estate.worth);
    same(run, estate.deaths);
    CHECK(run, !pthread_mutex_destroy(&estate.lock));
}

/* Processes that die with it, in one way or another. */
static _Noreturn void die_owning(struct run *run, struct estate *estate, unsigned how, int told)
{
    inherit(run, estate);
    estate->worth++;
    estate->deaths++;
    if (write(told, "x", 1) != 1)
        _exit(1);
    if (how == 0)
        _exit(3);
    for (;;)
        pause();
}

static void *lock_meanwhile(void *argument)
{
    struct heir *me = argument;
    for (unsigned turn = 0; turn < 3; turn++) {
        inherit(me->run, me->estate);
        event(me->run, me->estate->deaths);
        CHECK(me->run, !pthread_mutex_unlock(&me->estate->lock));
    }
    return NULL;
}

static void wills(struct run *run)
{
    struct chance chance = chance_for(run->seed, 0);
    struct estate *estate = mmap(NULL, sizeof *estate, PROT_READ | PROT_WRITE,
                                 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    robust_init(run, &estate->lock, true);
    for (unsigned turn = 0; turn < run->count / 8 + 1; turn++) {
        unsigned how = below(&chance, 2);
        int told[2];
        CHECK(run, !pipe(told));
        pid_t child = fork();
        if (child == 0)
            die_owning(run, estate, how, told[1]);
        struct heir heir = {run, estate, 0};
        pthread_t thread;
        CHECK(run, !pthread_create(&thread, NULL, lock_meanwhile, &heir));
        char byte;
        CHECK(run, read(told[0], &byte, 1) == 1);
        if (how != 0)
            CHECK(run, !kill(child, SIGKILL));
        int status = -1;
        CHECK(run, waitpid(child, &status, 0) == child);
        CHECK(run, status == (how == 0 ? 3 << 8 : SIGKILL));
        CHECK(run, !pthread_join(thread, NULL));
        inherit(run, estate);
        CHECK(run, !pthread_mutex_unlock(&estate->lock));
        close(told[0]);
        close(told[1]);
    }
    CHECK(run, estate->recovered == estate->deaths);
    same(run, estate->worth);
    munmap(estate, sizeof *estate);
}

/* ---- a first thread that leaves ---- */

struct orphan {
    int out;
    uint64_t value;
};

static void *carry_on(void *argument)
{
    struct orphan *me = argument;
    for (unsigned turn = 0; turn < 4; turn++) {
        sched_yield();
        me->value = mixed(me->value);
        if (write(me->out, &me->value, sizeof me->value) != sizeof me->value)
            _exit(1);
    }
    return NULL;
}

static _Noreturn void leave_alone(int out, uint64_t seed)
{
    /* They outlive this stack frame's thread, but not the stack. */
    static struct orphan orphans[2];
    for (unsigned at = 0; at < 2; at++) {
        pthread_t thread;
        orphans[at] = (struct orphan){out, seed + at};
        if (pthread_create(&thread, NULL, carry_on, &orphans[at]))
            _exit(1);
    }
    pthread_exit(NULL);
}

static void orphans(struct run *run)
{
    for (unsigned turn = 0; turn < run->count / 10 + 1; turn++) {
        int ends[2];
        CHECK(run, !pipe(ends));
        fflush(NULL);
        pid_t child = fork();
        if (child == 0)
            leave_alone(ends[1], run->seed + turn);
        close(ends[1]);
        uint64_t value, sum = 0, values = 0;
        while (read(ends[0], &value, sizeof value) == sizeof value) {
            sum += value;
            values++;
            event(run, value);
        }
        int status = -1;
        CHECK(run, waitpid(child, &status, 0) == child);
        CHECK(run, status == 0);
        CHECK(run, values == 8);
        close(ends[0]);
        same(run, sum);
    }
}

/* ---- a routine that does not return ---- */

static pthread_mutex_t once_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once;
static atomic_uint attempts;

static void try_once(void)
{
    sched_yield();
    if (atomic_fetch_add(&attempts, 1) < 2)
        pthread_exit(NULL);
}

static void *attempt(void *argument)
{
    struct run *run = *(struct run **)argument;
    CHECK(run, !pthread_once(&once, try_once));
    event(run, atomic_load(&attempts));
    return NULL;
}

static void attempts_(struct run *run)
{
    enum { MANY = 4 };
    struct run *members[MANY] = {run, run, run, run};
    pthread_mutex_lock(&once_lock);
    once = PTHREAD_ONCE_INIT;
    atomic_store(&attempts, 0);
    team(run, MANY, attempt, members, sizeof *members);
    same(run, atomic_load(&attempts));
    pthread_mutex_unlock(&once_lock);
}

const struct scenario end_scenarios[] = {
    {"cancels", cancels}, {"robust", robust},      {"wills", wills},
    {"orphans", orphans}, {"attempts", attempts_}, {NULL, NULL},
};
