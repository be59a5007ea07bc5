/* Waiting: barriers, semaphores, time limits on everything that has one. */
#include "torture.h"
#include <errno.h>
#include <semaphore.h>

/* ---- barriers ---- */

enum { PARTIES = 5 };

struct meeting {
    struct run *run;
    pthread_barrier_t barrier;
    uint64_t slot[PARTIES];
    atomic_uint serials;
};

struct party {
    struct meeting *meeting;
    unsigned number;
};

static void meet(struct party *me)
{
    int result = pthread_barrier_wait(&me->meeting->barrier);
    CHECK(me->meeting->run, result == 0 || result == PTHREAD_BARRIER_SERIAL_THREAD);
    if (result == PTHREAD_BARRIER_SERIAL_THREAD) {
        atomic_fetch_add(&me->meeting->serials, 1);
        event(me->meeting->run, me->number);
    }
}

static void *attend(void *argument)
{
    struct party *me = argument;
    struct meeting *meeting = me->meeting;
    struct chance chance = chance_for(meeting->run->seed, me->number);
    for (unsigned round = 0; round < meeting->run->count; round++) {
        dawdle(&chance);
        meeting->slot[me->number] = mixed(meeting->slot[me->number] + me->number + round);
        meet(me);
        uint64_t sum = 0;
        for (unsigned at = 0; at < PARTIES; at++)
            sum += meeting->slot[at];
        meet(me);
        meeting->slot[me->number] ^= sum;
    }
    return NULL;
}

static void barriers(struct run *run)
{
    struct meeting meeting = {.run = run};
    CHECK(run, !pthread_barrier_init(&meeting.barrier, NULL, PARTIES));
    struct party parties[PARTIES];
    for (unsigned at = 0; at < PARTIES; at++)
        parties[at] = (struct party){&meeting, at};
    team(run, PARTIES, attend, parties, sizeof *parties);
    CHECK(run, !pthread_barrier_destroy(&meeting.barrier));
    CHECK(run, atomic_load(&meeting.serials) == 2 * run->count);
    for (unsigned at = 0; at < PARTIES; at++)
        same(run, meeting.slot[at]);
}

/* ---- semaphores: a relay, and a pool of permits ---- */

enum { RUNNERS = 4, PERMITS = 2 };

struct relay {
    struct run *run;
    sem_t baton[RUNNERS], permits;
    uint64_t track; /* whoever has the baton writes */
    atomic_int inside;
};

struct runner {
    struct relay *relay;
    unsigned number;
};

static void enter_pool(struct runner *me, struct chance *chance)
{
    struct relay *relay = me->relay;
    if (below(chance, 2)) {
        while (sem_trywait(&relay->permits))
            CHECK(relay->run, errno == EAGAIN);
    } else {
        CHECK(relay->run, !sem_wait(&relay->permits));
    }
    int inside = atomic_fetch_add(&relay->inside, 1) + 1;
    CHECK(relay->run, inside <= PERMITS);
    event(relay->run, me->number);
    dawdle(chance);
    atomic_fetch_sub(&relay->inside, 1);
    CHECK(relay->run, !sem_post(&relay->permits));
}

static void *run_relay(void *argument)
{
    struct runner *me = argument;
    struct relay *relay = me->relay;
    struct chance chance = chance_for(relay->run->seed, me->number);
    for (unsigned round = 0; round < relay->run->count; round++) {
        CHECK(relay->run, !sem_wait(&relay->baton[me->number]));
        relay->track = mixed(relay->track ^ me->number);
        CHECK(relay->run, !sem_post(&relay->baton[(me->number + 1) % RUNNERS]));
        enter_pool(me, &chance);
    }
    return NULL;
}

static void semaphores(struct run *run)
{
    struct relay relay = {.run = run};
    struct runner runners[RUNNERS];
    for (unsigned at = 0; at < RUNNERS; at++) {
        CHECK(run, !sem_init(&relay.baton[at], 0, at == 0));
        runners[at] = (struct runner){&relay, at};
    }
    CHECK(run, !sem_init(&relay.permits, 0, PERMITS));
    team(run, RUNNERS, run_relay, runners, sizeof *runners);
    int left;
    CHECK(run, !sem_getvalue(&relay.permits, &left) && left == PERMITS);
    for (unsigned at = 0; at < RUNNERS; at++)
        CHECK(run, !sem_destroy(&relay.baton[at]));
    CHECK(run, !sem_destroy(&relay.permits));
    same(run, relay.track);
}

/* ---- time limits that pass, since nobody comes ---- */

struct limits {
    struct run *run;
    pthread_mutex_t held, lock;
    pthread_cond_t realtime, monotonic;
    pthread_rwlock_t written, read;
    sem_t empty;
};

struct waiter {
    struct limits *limits;
    unsigned number;
    uint64_t results;
};

static int wait_condition(struct limits *limits, unsigned how, clockid_t clock,
                          const struct timespec *until)
{
    pthread_cond_t *condition = clock == CLOCK_REALTIME ? &limits->realtime : &limits->monotonic;
    pthread_mutex_lock(&limits->lock);
    int result = how ? pthread_cond_clockwait(&limits->realtime, &limits->lock, clock, until)
                     : pthread_cond_timedwait(condition, &limits->lock, until);
    pthread_mutex_unlock(&limits->lock);
    return result;
}

static int wait_in_vain(struct limits *limits, unsigned how, clockid_t clock,
                        const struct timespec *until)
{
    switch (how) {
    case 0:
    case 1:
        return wait_condition(limits, how, clock, until);
    case 2:
        return pthread_mutex_clocklock(&limits->held, clock, until);
    case 3:
        return pthread_rwlock_clockrdlock(&limits->written, clock, until);
    case 4:
        return pthread_rwlock_clockwrlock(&limits->read, clock, until);
    case 5:
        return sem_clockwait(&limits->empty, clock, until) ? errno : 0;
    case 6:
        return pthread_mutex_timedlock(&limits->held, until);
    case 7:
        return pthread_rwlock_timedwrlock(&limits->written, until);
    case 8:
        return pthread_rwlock_timedwrlock(&limits->read, until);
    case 9:
        return sem_timedwait(&limits->empty, until) ? errno : 0;
    default:
        return clock_nanosleep(clock, TIMER_ABSTIME, until, NULL) ? EINVAL : ETIMEDOUT;
    }
}

static void *wait_limits(void *argument)
{
    struct waiter *me = argument;
    struct limits *limits = me->limits;
    struct chance chance = chance_for(limits->run->seed, me->number);
    for (unsigned turn = 0; turn < limits->run->count / 4 + 1; turn++) {
        unsigned how = below(&chance, 11);
        bool fixed = how >= 6 && how <= 9;
        clockid_t clock = below(&chance, 2) || fixed ? CLOCK_REALTIME : CLOCK_MONOTONIC;
        long ns = below(&chance, 4) == 0 ? 0 : below(&chance, 400) * 1000;
        struct timespec until = after(clock, ns);
        int result = wait_in_vain(limits, how, clock, &until);
        CHECK(limits->run, result == ETIMEDOUT);
        CHECK(limits->run, not_before(clock, until));
        me->results = mixed(me->results ^ how << 8 ^ (unsigned)result);
        event(limits->run, me->number << 4 | how);
    }
    return NULL;
}

static void limits_init(struct limits *limits)
{
    pthread_mutex_init(&limits->held, NULL);
    pthread_mutex_init(&limits->lock, NULL);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_cond_init(&limits->realtime, &attributes);
    CHECK(limits->run, !pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC));
    pthread_cond_init(&limits->monotonic, &attributes);
    pthread_rwlock_init(&limits->written, NULL);
    pthread_rwlock_init(&limits->read, NULL);
    sem_init(&limits->empty, 0, 0);
    pthread_mutex_lock(&limits->held);
    pthread_rwlock_wrlock(&limits->written);
    pthread_rwlock_rdlock(&limits->read);
}

static void timeouts(struct run *run)
{
    enum { WAITERS = 4 };
    struct limits limits = {.run = run};
    limits_init(&limits);
    struct waiter waiters[WAITERS];
    for (unsigned at = 0; at < WAITERS; at++)
        waiters[at] = (struct waiter){&limits, at, 0};
    team(run, WAITERS, wait_limits, waiters, sizeof *waiters);
    for (unsigned at = 0; at < WAITERS; at++)
        same(run, waiters[at].results);
    CHECK(run, !pthread_mutex_unlock(&limits.held));
    CHECK(run, !pthread_rwlock_unlock(&limits.written));
    CHECK(run, !pthread_rwlock_unlock(&limits.read));
}

/* ---- time limits that race with what is waited for ---- */

struct race {
    struct run *run;
    pthread_mutex_t lock;
    pthread_cond_t come;
    sem_t tokens;
    unsigned posted, taken, told;
};

struct racer {
    struct race *race;
    unsigned number;
};

static void take_token(struct racer *me, struct chance *chance)
{
    struct race *race = me->race;
    struct timespec until = after(CLOCK_REALTIME, below(chance, 100) * 1000);
    int result = sem_timedwait(&race->tokens, &until) ? errno : 0;
    CHECK(race->run, result == 0 || result == ETIMEDOUT);
    event(race->run, me->number << 8 | (unsigned)result);
    pthread_mutex_lock(&race->lock);
    race->taken += result == 0;
    unsigned told = race->told;
    until = after(CLOCK_REALTIME, below(chance, 100) * 1000);
    int late = 0;
    while (race->told == told && late == 0)
        late = pthread_cond_timedwait(&race->come, &race->lock, &until);
    event(race->run, me->number << 8 | (unsigned)late | 1u << 16);
    pthread_mutex_unlock(&race->lock);
}

static void *race_time(void *argument)
{
    struct racer *me = argument;
    struct race *race = me->race;
    struct chance chance = chance_for(race->run->seed, me->number);
    for (unsigned turn = 0; turn < race->run->count / 2 + 1; turn++) {
        if (me->number % 2) {
            take_token(me, &chance);
            continue;
        }
        struct timespec pause = {0, (long)below(&chance, 60) * 1000};
        nanosleep(&pause, NULL);
        CHECK(race->run, !sem_post(&race->tokens));
        pthread_mutex_lock(&race->lock);
        race->posted++;
        race->told++;
        (below(&chance, 2) ? pthread_cond_signal : pthread_cond_broadcast)(&race->come);
        pthread_mutex_unlock(&race->lock);
    }
    return NULL;
}

static void races(struct run *run)
{
    enum { RACERS = 4 };
    struct race race = {
        .run = run,
        .lock = PTHREAD_MUTEX_INITIALIZER,
        .come = PTHREAD_COND_INITIALIZER,
    };
    sem_init(&race.tokens, 0, 0);
    struct racer racers[RACERS];
    for (unsigned at = 0; at < RACERS; at++)
        racers[at] = (struct racer){&race, at};
    team(run, RACERS, race_time, racers, sizeof *racers);
    int left;
    CHECK(run, !sem_getvalue(&race.tokens, &left));
    CHECK(run, race.taken + (unsigned)left == race.posted);
    same(run, race.posted);
}

const struct scenario wait_scenarios[] = {
    {"barriers", barriers}, {"semaphores", semaphores}, {"timeouts", timeouts},
    {"races", races},       {NULL, NULL},
};
