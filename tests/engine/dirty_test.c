/* The dirty bitmaps against a model that keeps one struct per page. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "engine/dirty.h"

TestSuite(dirty, .timeout = 60);

enum { BLOCKS = 4, PAGES_MAX = 700 };

static const uint64_t block_pages[BLOCKS] = {1, 63, 128, PAGES_MAX};

struct page {
    bool dirty, logged, marked;
    uint32_t taken; /* epoch it was taken in last, 0 for none */
};

struct model {
    struct page pages[BLOCKS][PAGES_MAX];
    uint32_t epoch, acked;
    unsigned fail_block; /* dirty_sync of it fails; BLOCKS for none */
    uint64_t data_first, data_pages;
    bool data_wrong;
};

static enum godwit_err model_sync(void *self, unsigned block, uint64_t *bitmap, struct godwit_error *error)
{
    struct model *model = self;
    if (block == model->fail_block)
        return GODWIT_ERR_GUEST;
    for (uint64_t i = 0; i < block_pages[block]; i++)
        if (model->pages[block][i].logged)
            bitmap_set(bitmap, i, 1);
    if (block_pages[block] % 64 != 0) /* what lies behind the block in its last word must not be seen */
        bitmap[block_pages[block] / 64] |= ~UINT64_C(0) << block_pages[block] % 64;
    return GODWIT_OK;
}

static enum godwit_err model_next_data(void *self, unsigned block, uint64_t from, uint64_t *first, uint64_t *pages,
                                       struct godwit_error *error)
{
    const struct model *model = self;
    *pages = 0;
    *first = model->data_first > from ? model->data_first : from;
    if (block == 2 && from < model->data_first + model->data_pages)
        *pages = model->data_first + model->data_pages - *first;
    if (model->data_wrong)
        *pages = block_pages[block] + 1;
    return GODWIT_OK;
}

struct scene {
    struct godwit_block blocks[BLOCKS];
    struct ram *ram;
    struct dirty *dirty;
    struct guest guest;
    struct model model;
};

static void scene_open(struct scene *scene)
{
    static const struct godwit_guest_ops ops = {.dirty_sync = model_sync, .next_data = model_next_data};
    memset(scene, 0, sizeof *scene);
    for (unsigned i = 0; i < BLOCKS; i++) {
        scene->blocks[i] =
            (struct godwit_block){.addr = (void *)(uintptr_t)0x10000, .size = block_pages[i] * 4096, .fd = -1};
        scene->blocks[i].id[0] = (char)('a' + i);
    }
    struct godwit_guest given = {.ops = &ops, .self = &scene->model, .blocks = scene->blocks, .block_count = BLOCKS};
    cr_assert_eq(guest_resolve(&given, &scene->guest, NULL), GODWIT_OK);
    scene->ram = ram_new(scene->blocks, BLOCKS, false);
    scene->dirty = dirty_new(scene->ram);
    cr_assert_not_null(scene->dirty);
    scene->model.fail_block = BLOCKS;
}

static void scene_close(struct scene *scene)
{
    dirty_free(scene->dirty);
    ram_free(scene->ram);
}

static uint64_t model_count(const struct model *model)
{
    uint64_t count = 0;
    for (unsigned b = 0; b < BLOCKS; b++)
        for (uint64_t i = 0; i < block_pages[b]; i++)
            count += model->pages[b][i].dirty;
    return count;
}

static void sync_both(struct scene *scene)
{
    struct model *model = &scene->model;
    uint64_t before = model_count(model), found;
    struct godwit_error error = {0};
    cr_assert_eq(dirty_sync(scene->dirty, &scene->guest, &found, &error), GODWIT_OK);
    for (unsigned b = 0; b < BLOCKS; b++)
        for (uint64_t i = 0; i < block_pages[b]; i++) {
            struct page *page = &model->pages[b][i];
            page->dirty |= page->logged || page->marked;
            page->logged = page->marked = false;
        }
    cr_assert_eq(found, model_count(model) - before);
    cr_assert_eq(scene->dirty->pages, model_count(model));
}

static void write_randomly(struct scene *scene)
{
    for (unsigned n = (unsigned)rand() % 200; n > 0; n--) {
        unsigned b = (unsigned)rand() % BLOCKS;
        scene->model.pages[b][(uint64_t)rand() % block_pages[b]].logged = true;
    }
}

static void mark_randomly(struct scene *scene)
{
    for (unsigned n = (unsigned)rand() % 100; n > 0; n--) {
        unsigned b = (unsigned)rand() % (BLOCKS + 1); /* sometimes one that is not there */
        uint64_t first = (uint64_t)rand() % (PAGES_MAX + 10);
        uint64_t pages = rand() % 8 == 0 ? UINT64_MAX : (uint64_t)rand() % 20;
        dirty_mark(scene->dirty, b, first, pages);
        for (uint64_t i = first; b < BLOCKS && i < block_pages[b] && i - first < pages; i++)
            scene->model.pages[b][i].marked = true;
    }
}

/* What lies between here and there was not to be taken. */
static void pass_over(const struct model *model, bool hold, struct dirty_cursor *here, struct dirty_cursor there)
{
    while (here->block < there.block || (here->block == there.block && here->page < there.page)) {
        if (here->page >= block_pages[here->block]) {
            *here = (struct dirty_cursor){here->block + 1, 0};
            continue;
        }
        const struct page *page = &model->pages[here->block][here->page++];
        cr_assert(!page->dirty || (hold && page->taken == model->epoch - 1), "a page was left out");
    }
}

static void check_extent(struct model *model, bool hold, const struct extent *extent)
{
    cr_assert(extent->kind == EXTENT_NORMAL && extent->pages > 0);
    for (uint64_t i = extent->first; i < extent->first + extent->pages; i++) {
        struct page *page = &model->pages[extent->block][i];
        cr_assert(i < block_pages[extent->block] && page->dirty);
        cr_assert(!hold || page->taken != model->epoch - 1, "a page on its way was taken");
        cr_assert_neq(page->taken, model->epoch, "a page was taken twice in an epoch");
        page->dirty = false;
        page->taken = model->epoch;
    }
}

/* One walk: takes some, and compares each batch with what the model says may go. */
static void take_randomly(struct scene *scene, bool to_the_end)
{
    struct model *model = &scene->model;
    struct dirty_cursor cursor = {0};
    struct batch batch;
    bool hold = model->acked + 1 < model->epoch;
    struct dirty_cursor here = {0};
    do {
        unsigned most = 1 + (unsigned)rand() % (rand() % 4 == 0 ? BATCH_PAGES : 40), pages = 0;
        batch_reset(&batch, model->epoch);
        dirty_take(scene->dirty, &cursor, hold, most, &batch);
        for (unsigned i = 0; i < batch.count; i++) {
            const struct extent *extent = &batch.extents[i];
            struct dirty_cursor there = {extent->block, extent->first};
            cr_assert(i == 0 || here.block != there.block || here.page != there.page, "two extents could be one");
            pass_over(model, hold, &here, there);
            check_extent(model, hold, extent);
            here.page += extent->pages;
            pages += extent->pages;
        }
        cr_assert(pages == batch.normal_pages && pages <= most);
        cr_assert_eq(scene->dirty->pages, model_count(model));
        if (pages < most) { /* the walk is over, whether the next batch stays empty or not */
            pass_over(model, hold, &here, (struct dirty_cursor){BLOCKS, 0});
            batch_reset(&batch, model->epoch);
            dirty_take(scene->dirty, &cursor, hold, most, &batch);
            cr_assert_eq(batch.count, 0);
        }
    } while (batch.count > 0 && (to_the_end || rand() % 8 != 0));
}

Test(dirty, random_operations_agree_with_the_model)
{
    for (unsigned seed = 1; seed <= 60; seed++) {
        struct scene *scene = malloc(sizeof *scene);
        scene_open(scene);
        struct model *model = &scene->model;
        srand(seed);
        for (unsigned step = 0; step < 150; step++) {
            if (rand() % 2 && model->acked < model->epoch)
                model->acked++;
            write_randomly(scene);
            mark_randomly(scene);
            sync_both(scene);
            if (model->acked + 1 < model->epoch) /* as ledger_may_open() has it */
                continue;
            model->epoch++;
            dirty_reset_sent(scene->dirty, model->epoch);
            take_randomly(scene, rand() % 2);
        }
        scene_close(scene);
        free(scene);
    }
}

static void assert_one_extent(const struct batch *batch, unsigned block, uint64_t first, unsigned pages)
{
    const struct extent *extent = &batch->extents[0];
    cr_assert_eq(batch->count, 1);
    cr_assert(extent->block == block && extent->first == first && extent->pages == pages, "block %u: %llu+%u",
              extent->block, (unsigned long long)extent->first, extent->pages);
}

Test(dirty, a_page_on_its_way_waits_for_the_acknowledgement)
{
    struct scene *scene = malloc(sizeof *scene);
    scene_open(scene);
    struct dirty *dirty = scene->dirty;
    uint64_t found;
    struct dirty_cursor cursor = {0};
    struct batch batch;
    dirty_mark(dirty, 3, 10, 3);
    cr_assert_eq(dirty_sync(dirty, &scene->guest, &found, NULL), GODWIT_OK);
    dirty_reset_sent(dirty, 1);
    batch_reset(&batch, 1);
    dirty_take(dirty, &cursor, false, 100, &batch);
    assert_one_extent(&batch, 3, 10, 3);
    dirty_mark(dirty, 3, 11, 3); /* 11 and 12 are on their way, 13 is not */
    cr_assert_eq(dirty_sync(dirty, &scene->guest, &found, NULL), GODWIT_OK);
    cr_assert_eq(found, 3);

    dirty_reset_sent(dirty, 2);
    cursor = (struct dirty_cursor){0};
    batch_reset(&batch, 2);
    dirty_take(dirty, &cursor, true, 100, &batch);
    assert_one_extent(&batch, 3, 13, 1);
    cr_assert_eq(dirty->pages, 2);

    cursor = (struct dirty_cursor){0};
    batch_reset(&batch, 2);
    dirty_take(dirty, &cursor, false, 100, &batch); /* acknowledged meanwhile */
    assert_one_extent(&batch, 3, 11, 2);
    cr_assert_eq(dirty->pages, 0);
    scene_close(scene);
    free(scene);
}

Test(dirty, what_is_no_data_stays_clear)
{
    struct scene *scene = malloc(sizeof *scene);
    scene_open(scene);
    scene->model.data_first = 60;
    scene->model.data_pages = 8;
    cr_assert_eq(dirty_find_data(scene->dirty, &scene->guest, NULL), GODWIT_OK);
    cr_assert_eq(scene->dirty->pages, 8);
    struct dirty_cursor cursor = {0};
    struct batch batch;
    batch_reset(&batch, 1);
    dirty_take(scene->dirty, &cursor, false, 100, &batch);
    assert_one_extent(&batch, 2, 60, 8);
    scene_close(scene);
    free(scene);
}

Test(dirty, a_guest_that_reports_data_outside_its_block_is_refused)
{
    struct scene *scene = malloc(sizeof *scene);
    scene_open(scene);
    struct godwit_error error = {0};
    scene->model.data_wrong = true;
    cr_assert_eq(dirty_find_data(scene->dirty, &scene->guest, &error), GODWIT_ERR_GUEST);
    cr_assert_not_null(strstr(error.text, "block a"), "%s", error.text);
    scene_close(scene);
    free(scene);
}

Test(dirty, a_log_that_cannot_be_read_is_an_error_that_names_the_block)
{
    struct scene *scene = malloc(sizeof *scene);
    scene_open(scene);
    struct godwit_error error = {.code = GODWIT_ERR_GUEST, .text = "log lost"};
    uint64_t found;
    scene->model.fail_block = 2;
    cr_assert_neq(dirty_sync(scene->dirty, &scene->guest, &found, &error), GODWIT_OK);
    cr_assert(strstr(error.text, "block c") && strstr(error.text, "log lost"), "%s", error.text);
    scene_close(scene);
    free(scene);
}
