/* The threads of the C standard. */
#include "torture.h"
#include <stdlib.h>
#include <threads.h>

enum { GUESTS = 4 };

struct party {
    struct run *run;
    mtx_t plain, recursive, timed;
    cnd_t changed;
    tss_t name;
    unsigned turn;
    uint64_t sum;
    atomic_uint forgotten;
    atomic_bool waved;
};

struct guest {
    struct party *party;
    unsigned number;
};

static once_flag begun = ONCE_FLAG_INIT;
static atomic_uint beginnings;

static void begin(void)
{
    thrd_yield();
    atomic_fetch_add(&beginnings, 1);
}

static void forget(void *value)
{
    struct guest *guest = value;
    atomic_fetch_add(&guest->party->forgotten, 1);
}

/* Guests in order of their numbers. */
static void in_turn(struct guest *me)
{
    struct party *party = me->party;
    CHECK(party->run, mtx_lock(&party->plain) == thrd_success);
    while (party->turn % GUESTS != me->number)
        CHECK(party->run, cnd_wait(&party->changed, &party->plain) == thrd_success);
    party->turn++;
    party->sum = mixed(party->sum ^ me->number);
    CHECK(party->run, cnd_broadcast(&party->changed) == thrd_success);
    CHECK(party->run, mtx_unlock(&party->plain) == thrd_success);
}

static void with_limits(struct guest *me, struct chance *chance)
{
    struct party *party = me->party;
    struct timespec until = after(CLOCK_REALTIME, 1 + below(chance, 50) * 1000);
    int locked = mtx_timedlock(&party->timed, &until);
    CHECK(party->run, locked == thrd_success || locked == thrd_timedout);
    event(party->run, me->number << 8 | (unsigned)locked);
    if (locked == thrd_success) {
        struct timespec pause = {0, (long)below(chance, 30) * 1000};
        thrd_sleep(&pause, NULL);
        CHECK(party->run, mtx_unlock(&party->timed) == thrd_success);
    }
    mtx_lock(&party->plain);
    until = after(CLOCK_REALTIME, 1000);
    int told = cnd_timedwait(&party->changed, &party->plain, &until);
    CHECK(party->run, told == thrd_success || told == thrd_timedout);
    event(party->run, me->number << 8 | (unsigned)told | 1u << 16);
    mtx_unlock(&party->plain);
}

static int visit(void *argument)
{
    struct guest *me = argument;
    struct party *party = me->party;
    struct chance chance = chance_for(party->run->seed, me->number);
    call_once(&begun, begin);
    CHECK(party->run, tss_set(party->name, me) == thrd_success);
    for (unsigned round = 0; round < party->run->count / 4 + 1; round++) {
        in_turn(me);
        thrd_yield();
        CHECK(party->run, mtx_lock(&party->recursive) == thrd_success);
        CHECK(party->run, mtx_trylock(&party->recursive) == thrd_success);
        event(party->run, me->number);
        CHECK(party->run, mtx_unlock(&party->recursive) == thrd_success);
        CHECK(party->run, mtx_unlock(&party->recursive) == thrd_success);
        if (below(&chance, 4) == 0)
            with_limits(me, &chance);
    }
    CHECK(party->run, tss_get(party->name) == me);
    if (me->number == 0)
        thrd_exit(100);
    return 100 + (int)me->number;
}

static int wave(void *argument)
{
    struct party *party = argument;
    event(party->run, 1u << 20);
    atomic_store(&party->waved, true); /* the last look at what ends with the scenario */
    return 0;
}

static void c11(struct run *run)
{
    struct party party = {.run = run};
    CHECK(run, mtx_init(&party.plain, mtx_plain) == thrd_success);
    CHECK(run, mtx_init(&party.recursive, mtx_plain | mtx_recursive) == thrd_success);
    CHECK(run, mtx_init(&party.timed, mtx_timed) == thrd_success);
    CHECK(run, cnd_init(&party.changed) == thrd_success);
    CHECK(run, tss_create(&party.name, forget) == thrd_success);
    struct guest guests[GUESTS];
    thrd_t threads[GUESTS];
    for (unsigned at = 0; at < GUESTS; at++) {
        guests[at] = (struct guest){&party, at};
        CHECK(run, thrd_create(&threads[at], visit, &guests[at]) == thrd_success);
    }
    thrd_t gone;
    CHECK(run, thrd_create(&gone, wave, &party) == thrd_success);
    struct timespec pause = {0, 1000};
    thrd_sleep(&pause, NULL);
    CHECK(run, thrd_detach(gone) == thrd_success);
    for (unsigned at = 0; at < GUESTS; at++) {
        int result = 0;
        CHECK(run, thrd_join(threads[at], &result) == thrd_success);
        same(run, (uint64_t)result);
    }
    /* Nobody joins the thread that has gone, which may be late. */
    while (!atomic_load(&party.waved))
        thrd_yield();
    CHECK(run, atomic_load(&beginnings) == 1);
    CHECK(run, atomic_load(&party.forgotten) == GUESTS);
    same(run, party.sum);
    same(run, party.turn);
    cnd_destroy(&party.changed);
    mtx_destroy(&party.plain);
    mtx_destroy(&party.recursive);
    mtx_destroy(&party.timed);
    tss_delete(party.name);
}

const struct scenario c11_scenarios[] = {{"c11", c11}, {NULL, NULL}};
