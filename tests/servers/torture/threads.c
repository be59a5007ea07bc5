/* Threads coming and going: trees of them, detached ones, ends of every kind, once, specific data. */
#include "torture.h"
#include <sched.h>
#include <semaphore.h>
#include <stdlib.h>
#include <unistd.h>

/* ---- a tree of threads ---- */

struct grove {
    struct run *run;
    sem_t fallen; /* counts detached threads that are done */
    _Atomic uint64_t leaves;
    atomic_uint detached;
};

struct branch {
    struct grove *grove;
    uint64_t name;
    unsigned depth;
    bool detached;
};

static void *grow(void *argument);

static bool sprout(struct branch *branch, pthread_t *thread)
{
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    if (branch->detached)
        pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, 128 * 1024);
    bool made = pthread_create(thread, &attributes, grow, branch) == 0;
    CHECK(branch->grove->run, made);
    pthread_attr_destroy(&attributes);
    return made;
}

static uint64_t grow_children(const struct branch *me, struct chance *chance)
{
    enum { CHILDREN = 2 };
    pthread_t threads[CHILDREN];
    bool joined[CHILDREN] = {false};
    for (unsigned at = 0; at < CHILDREN; at++) {
        struct branch *child = malloc(sizeof *child);
        unsigned fate = below(chance, 4);
        *child = (struct branch){me->grove, mixed(me->name + at), me->depth - 1, fate == 0};
        if (fate == 0)
            atomic_fetch_add(&me->grove->detached, 1);
        joined[at] = sprout(child, &threads[at]) && fate != 0;
        dawdle(chance);
    }
    uint64_t sum = 0;
    for (unsigned at = 0; at < CHILDREN; at++) {
        void *result = NULL;
        if (joined[at]) {
            CHECK(me->grove->run, !pthread_join(threads[at], &result));
            sum += (uint64_t)(uintptr_t)result;
        }
    }
    return sum;
}

static void *grow(void *argument)
{
    struct branch me = *(struct branch *)argument;
    free(argument);
    struct chance chance = chance_for(me.name, me.depth);
    event(me.grove->run, me.name);
    uint64_t sum = me.name;
    if (me.depth > 0)
        sum += grow_children(&me, &chance);
    else
        atomic_fetch_add(&me.grove->leaves, me.name);
    if (me.detached)
        CHECK(me.grove->run, !sem_post(&me.grove->fallen));
    if (below(&chance, 2))
        pthread_exit((void *)(uintptr_t)sum);
    return (void *)(uintptr_t)sum;
}

static void churn(struct run *run)
{
    struct grove grove = {.run = run};
    sem_init(&grove.fallen, 0, 0);
    uint64_t sum = 0;
    for (unsigned tree = 0; tree < run->count / 8 + 1; tree++) {
        struct branch *root = malloc(sizeof *root);
        *root = (struct branch){&grove, mixed(run->seed + tree), 3, false};
        pthread_t thread;
        void *result = NULL;
        if (sprout(root, &thread))
            CHECK(run, !pthread_join(thread, &result));
        sum += (uint64_t)(uintptr_t)result;
    }
    /* Detached ones may make more of them until the last is done. */
    for (unsigned done = 0; done < atomic_load(&grove.detached); done++)
        CHECK(run, !sem_wait(&grove.fallen));
    same(run, sum);
    same(run, atomic_load(&grove.leaves));
    same(run, atomic_load(&grove.detached));
}

/* ---- detaching and joining by others ---- */

static void *pass_through(void *argument)
{
    sched_yield();
    return argument;
}

struct hand_over {
    struct run *run;
    pthread_t other;
    uint64_t result;
};

static void *join_other(void *argument)
{
    struct hand_over *me = argument;
    void *result = NULL;
    CHECK(me->run, !pthread_join(me->other, &result));
    me->result = (uint64_t)(uintptr_t)result;
    event(me->run, me->result);
    return NULL;
}

static void joins(struct run *run)
{
    enum { MANY = 4 };
    struct chance chance = chance_for(run->seed, 0);
    for (unsigned turn = 0; turn < run->count / 2 + 1; turn++) {
        struct hand_over hand[MANY];
        for (unsigned at = 0; at < MANY; at++) {
            void *argument = (void *)(uintptr_t)(turn * MANY + at + 1);
            hand[at] = (struct hand_over){run, 0, 0};
            CHECK(run, !pthread_create(&hand[at].other, NULL, pass_through, argument));
        }
        pthread_t late;
        CHECK(run, !pthread_create(&late, NULL, pass_through, NULL));
        dawdle(&chance);
        team(run, MANY, join_other, hand, sizeof *hand);
        CHECK(run, !pthread_detach(late));
        for (unsigned at = 0; at < MANY; at++)
            same(run, hand[at].result);
    }
}

/* ---- once, and data of each thread with destructors ---- */

struct household {
    struct run *run;
    pthread_key_t keys[3];
    atomic_uint destroyed;
};

struct belonging {
    struct household *household;
    unsigned key, rounds;
};

static void destroy(void *value)
{
    struct belonging *it = value;
    struct household *household = it->household;
    atomic_fetch_add(&household->destroyed, 1);
    event(household->run, it->key << 4 | it->rounds);
    sched_yield();
    if (it->rounds-- > 0)
        pthread_setspecific(household->keys[it->key], it);
    else
        free(it);
}

static void *own(void *argument)
{
    struct household *household = *(struct household **)argument;
    for (unsigned key = 0; key < 3; key++) {
        struct belonging *it = malloc(sizeof *it);
        *it = (struct belonging){household, key, key};
        CHECK(household->run, !pthread_setspecific(household->keys[key], it));
        sched_yield();
        CHECK(household->run, pthread_getspecific(household->keys[key]) == it);
    }
    return NULL;
}

static void belongings(struct run *run)
{
    enum { MANY = 4 };
    struct household household = {.run = run};
    struct household *members[MANY];
    for (unsigned key = 0; key < 3; key++)
        CHECK(run, !pthread_key_create(&household.keys[key], destroy));
    for (unsigned at = 0; at < MANY; at++)
        members[at] = &household;
    for (unsigned turn = 0; turn < run->count / 8 + 1; turn++)
        team(run, MANY, own, members, sizeof *members);
    for (unsigned key = 0; key < 3; key++)
        CHECK(run, !pthread_key_delete(household.keys[key]));
    /* 1, 2 and 3 rounds. */
    CHECK(run, atomic_load(&household.destroyed) == (run->count / 8 + 1) * MANY * 6);
    same(run, atomic_load(&household.destroyed));
}

static pthread_mutex_t once_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once;
static unsigned once_runs;

static void only_once(void)
{
    sched_yield();
    usleep(5);
    once_runs++;
    sched_yield();
}

static void *call_once_(void *argument)
{
    struct run *run = *(struct run **)argument;
    CHECK(run, !pthread_once(&once, only_once));
    CHECK(run, once_runs == 1);
    return NULL;
}

static void onces(struct run *run)
{
    enum { MANY = 4 };
    struct run *members[MANY] = {run, run, run, run};
    /* The routine has no argument, so one scenario at a time. */
    pthread_mutex_lock(&once_lock);
    for (unsigned turn = 0; turn < run->count / 8 + 1; turn++) {
        once = PTHREAD_ONCE_INIT;
        once_runs = 0;
        team(run, MANY, call_once_, members, sizeof *members);
        same(run, once_runs);
    }
    pthread_mutex_unlock(&once_lock);
}

const struct scenario thread_scenarios[] = {
    {"churn", churn}, {"joins", joins}, {"belongings", belongings},
    {"onces", onces}, {NULL, NULL},
};
