/* Below the library: futexes by system call, atomics, spinning, and races on purpose. */
#include "torture.h"
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static long futex(atomic_uint *word, int operation, unsigned value, uintptr_t timeout_or_count,
                  atomic_uint *other, unsigned value3)
{
    return syscall(SYS_futex, word, operation | FUTEX_PRIVATE_FLAG, value, timeout_or_count,
                   other, value3);
}

/* ---- a mutex and an event of futexes ---- */

enum { USERS = 4 };

struct futexes {
    struct run *run;
    atomic_uint lock; /* 0 free, 1 held, 2 held and waited for */
    atomic_uint sequence;
    atomic_uint gate; /* bits wake only their own waiters */
    uint64_t guarded;
    unsigned arrived;
};

struct user {
    struct futexes *futexes;
    unsigned number;
};

static void lock_contended(struct futexes *it)
{
    while (atomic_exchange(&it->lock, 2) != 0)
        futex(&it->lock, FUTEX_WAIT, 2, 0, NULL, 0);
}

static void lock(struct futexes *it)
{
    unsigned none = 0;
    if (!atomic_compare_exchange_strong(&it->lock, &none, 1))
        lock_contended(it);
}

static void unlock(struct futexes *it)
{
    if (atomic_exchange(&it->lock, 0) == 2)
        futex(&it->lock, FUTEX_WAKE, 1, 0, NULL, 0);
}

/* A round: the last to arrive wakes one and moves the others to the mutex. */
static void rendezvous(struct user *me)
{
    struct futexes *it = me->futexes;
    lock(it);
    unsigned sequence = atomic_load(&it->sequence);
    if (++it->arrived == USERS) {
        it->arrived = 0;
        atomic_fetch_add(&it->sequence, 1);
        atomic_store(&it->lock, 2);
        futex(&it->sequence, FUTEX_CMP_REQUEUE, 1, INT_MAX, &it->lock, sequence + 1);
        event(it->run, me->number | 1u << 8);
        unlock(it);
        return;
    }
    unlock(it);
    while (atomic_load(&it->sequence) == sequence)
        futex(&it->sequence, FUTEX_WAIT, sequence, 0, NULL, 0);
    lock_contended(it);
    event(it->run, me->number);
    unlock(it);
}

/* Waits for its own bit, or until the time is over. */
static void pass_gate(struct user *me, struct chance *chance)
{
    struct futexes *it = me->futexes;
    struct timespec until = after(CLOCK_MONOTONIC, below(chance, 200) * 1000);
    unsigned bit = 1u << me->number;
    unsigned gate = atomic_load(&it->gate);
    if (me->number == 0) {
        atomic_fetch_add(&it->gate, 1);
        unsigned bits = (unsigned)below(chance, 15) + 1;
        long woken = futex(&it->gate, FUTEX_WAKE_BITSET, INT_MAX, 0, NULL, bits);
        CHECK(it->run, woken >= 0 && woken < USERS);
        event(it->run, (uint64_t)woken << 16 | bits);
        return;
    }
    long result = futex(&it->gate, FUTEX_WAIT_BITSET, gate, (uintptr_t)&until, NULL, bit);
    int error = result ? errno : 0;
    CHECK(it->run, error == 0 || error == ETIMEDOUT || error == EAGAIN);
    event(it->run, (uint64_t)error << 16 | me->number);
}

static void *use_futexes(void *argument)
{
    struct user *me = argument;
    struct futexes *it = me->futexes;
    struct chance chance = chance_for(it->run->seed, me->number);
    for (unsigned round = 0; round < it->run->count; round++) {
        lock(it);
        uint64_t seen = it->guarded;
        dawdle(&chance);
        it->guarded = seen + 1;
        unlock(it);
        rendezvous(me);
        if (round % 4 == 0)
            pass_gate(me, &chance);
    }
    return NULL;
}

static void futexes(struct run *run)
{
    struct futexes futexes = {.run = run};
    struct user users[USERS];
    for (unsigned at = 0; at < USERS; at++)
        users[at] = (struct user){&futexes, at};
    team(run, USERS, use_futexes, users, sizeof *users);
    CHECK(run, futexes.guarded == (uint64_t)USERS * run->count);
    same(run, futexes.guarded);
    same(run, atomic_load(&futexes.sequence));
}

/* ---- a stack of atomics ---- */

enum { NODES = 8, WORKERS = 4 };

struct stack {
    struct run *run;
    _Atomic uint64_t head; /* count << 16 | index + 1 */
    uint16_t next[NODES];
    uint64_t taken[NODES];
};

struct worker {
    struct stack *stack;
    unsigned number;
    volatile uint64_t *racy;
};

static void push(struct stack *stack, unsigned node)
{
    uint64_t head = atomic_load(&stack->head);
    uint64_t wanted;
    do {
        stack->next[node] = (uint16_t)head;
        wanted = ((head >> 16) + 1) << 16 | (node + 1);
    } while (!atomic_compare_exchange_weak(&stack->head, &head, wanted));
}

static int pop(struct stack *stack)
{
    uint64_t head = atomic_load(&stack->head);
    uint64_t wanted;
    do {
        if ((uint16_t)head == 0)
            return -1;
        wanted = ((head >> 16) + 1) << 16 | stack->next[(uint16_t)head - 1];
    } while (!atomic_compare_exchange_weak(&stack->head, &head, wanted));
    return (int)(uint16_t)head - 1;
}

static void *juggle(void *argument)
{
    struct worker *me = argument;
    struct stack *stack = me->stack;
    struct chance chance = chance_for(stack->run->seed, me->number);
    for (unsigned turn = 0; turn < stack->run->count; turn++) {
        int node;
        while ((node = pop(stack)) < 0)
            sched_yield();
        stack->taken[node]++;
        event(stack->run, me->number << 4 | (unsigned)node);
        dawdle(&chance);
        push(stack, (unsigned)node);
    }
    return NULL;
}

static void atomics(struct run *run)
{
    struct stack stack = {.run = run};
    struct worker workers[WORKERS];
    for (unsigned node = 0; node < WORKERS / 2; node++)
        push(&stack, node);
    for (unsigned at = 0; at < WORKERS; at++)
        workers[at] = (struct worker){&stack, at, NULL};
    team(run, WORKERS, juggle, workers, sizeof *workers);
    uint64_t taken = 0;
    for (unsigned node = 0; node < NODES; node++)
        taken += stack.taken[node];
    CHECK(run, taken == (uint64_t)WORKERS * run->count);
    same(run, taken);
}

/* ---- taking turns by spinning ---- */

struct spinner {
    struct run *run;
    atomic_uint *turn;
    unsigned number;
};

static void *spin(void *argument)
{
    struct spinner *me = argument;
    for (unsigned round = 0; round < me->run->count; round++) {
        unsigned spins = 0;
        while (atomic_load(me->turn) % WORKERS != me->number) {
            spins++;
            sched_yield();
        }
        event(me->run, spins);
        atomic_fetch_add(me->turn, 1);
    }
    return NULL;
}

static void yields(struct run *run)
{
    atomic_uint turn = 0;
    struct spinner spinners[WORKERS];
    for (unsigned at = 0; at < WORKERS; at++)
        spinners[at] = (struct spinner){run, &turn, at};
    team(run, WORKERS, spin, spinners, sizeof *spinners);
    same(run, atomic_load(&turn));
}

/* ---- a data race: what is lost must be lost everywhere alike ---- */

static void *race(void *argument)
{
    struct worker *me = argument;
    struct chance chance = chance_for(me->stack->run->seed, me->number);
    for (unsigned turn = 0; turn < me->stack->run->count * 8; turn++) {
        uint64_t seen = *me->racy;
        if (below(&chance, 3) == 0)
            sched_yield();
        *me->racy = mixed(seen ^ me->number);
    }
    return NULL;
}

static void lost(struct run *run)
{
    volatile uint64_t racy = run->seed;
    struct stack stack = {.run = run};
    struct worker workers[WORKERS];
    for (unsigned at = 0; at < WORKERS; at++)
        workers[at] = (struct worker){&stack, at, &racy};
    team(run, WORKERS, race, workers, sizeof *workers);
    event(run, racy);
    same(run, run->seed);
}

const struct scenario raw_scenarios[] = {
    {"futexes", futexes}, {"atomics", atomics}, {"yields", yields},
    {"lost", lost},       {NULL, NULL},
};
