/* protocol.h for Python: numbered records of one writer (Store), words in x86-64's order (Words), futexes.
 *
 * A method does the plain case. What is not plain, a strided frame say or a wrong number, it leaves alone and says so: the
 * same method in rtcore/memory/, in Python, then does it or raises the error. Nothing waits with the interpreter's lock. */
#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "protocol.h"

enum { MAX_WORDS = 64 };
#define ARGS PyObject *const *args, Py_ssize_t count
#define ALIGNED(num_bytes) (((num_bytes) + 7) / 8 * 8)
#define FAST(name, function) {name, (PyCFunction)(void (*)(void))(function), METH_FASTCALL, NULL}

static PyObject *name_dtype, *no_bytes;
static PyTypeObject *store_type, *waker_type;

static int as_int64(PyObject *number, int64_t *value)
{
    *value = PyLong_AsLongLong(number);
    return *value == -1 && PyErr_Occurred() ? -1 : 0;
}

/* The first items of a tuple; 0: there are not so many, or they are no numbers. */
static int int64s(PyObject *tuple, Py_ssize_t count, int64_t *values)
{
    if (!PyTuple_Check(tuple) || PyTuple_Size(tuple) < count)
        return 0;
    for (Py_ssize_t index = 0; index < count; index++)
        if (as_int64(PyTuple_GetItem(tuple, index), &values[index]) < 0)
            return 0;
    return 1;
}

static int takes(Py_ssize_t count, Py_ssize_t least, Py_ssize_t most)
{
    if (count >= least && count <= most)
        return 1;
    PyErr_Format(PyExc_TypeError, "expected %zd to %zd arguments, got %zd", least, most, count);
    return 0;
}

/* A place of so many bytes in a buffer, within it and aligned. */
static char *place_in(const Py_buffer *view, Py_ssize_t at, Py_ssize_t num_bytes)
{
    char *place = (char *)view->buf + at;
    if (at >= 0 && num_bytes >= 0 && at + num_bytes <= view->len && (uintptr_t)place % 8 == 0)
        return place;
    PyErr_Format(PyExc_ValueError, "no %zd bytes at %zd of a buffer of %zd", num_bytes, at, view->len);
    return NULL;
}

/* For writing where the memory lets us: an onlooker's is mapped read-only. */
static int view_of(PyObject *object, Py_buffer *view)
{
    if (PyObject_GetBuffer(object, view, PyBUF_WRITABLE) == 0)
        return 0;
    PyErr_Clear();
    return PyObject_GetBuffer(object, view, PyBUF_SIMPLE);
}

static void *new_object(PyTypeObject *type)
{
    return ((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
}

static void free_object(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

/* -- Store --------------------------------------------------------------------------------------------------------------- */

typedef struct {
    PyObject_HEAD
    rt_store store;
    Py_buffer view, part_views[RT_MAX_PARTS], out_view;
    PyTypeObject *row; /* a NamedTuple: the lead, the words, then what else is bytes */
    PyObject *names; /* of its fields */
    PyObject *staged; /* the draft whose words are below, but for the late ones; NULL: none */
    int64_t words[MAX_WORDS];
    PyObject *lead; /* what a row begins with beside its words; NULL: nothing */
    PyObject *dtype; /* of part 0, where that is an array */
    PyObject *out; /* of which out_view is a view: a worker reads into the same array each time */
    Py_ssize_t row_size, num_words, seq_at;
    uint64_t all, late, doubles; /* of words, by their bits */
} Store;

/* Store(row type, lead or None, number of words, index of the record's number, bits of the doubles, of the late ones,
 *       buffer, place of slot 0's words, stride, number of slots, place of `done`, place of `begun` or -1) */
static PyObject *store_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    (void)kwargs;
    PyObject *row, *lead, *buffer;
    Py_ssize_t num_words, seq_at, at, stride, num_slots, done_at, begun_at;
    unsigned long long doubles, late;
    if (!PyArg_ParseTuple(args, "O!OnnKKOnnnnn", &PyType_Type, &row, &lead, &num_words, &seq_at, &doubles, &late, &buffer, &at,
                          &stride, &num_slots, &done_at, &begun_at))
        return NULL;
    Store *self = new_object(type);
    if (self == NULL)
        return NULL;
    Py_INCREF(row);
    self->row = (PyTypeObject *)row, self->names = PyObject_GetAttrString(row, "_fields");
    self->row_size = self->names == NULL ? -1 : PyTuple_Size(self->names);
    self->lead = lead == Py_None ? NULL : Py_NewRef(lead);
    if (num_words < 1 || num_words > MAX_WORDS || self->row_size < num_words + (self->lead != NULL) || num_slots < 1) {
        PyErr_SetString(PyExc_ValueError, "a store has rows that are named tuples with 1 to 64 words, and a slot");
        goto failed;
    }
    self->num_words = num_words, self->seq_at = seq_at, self->doubles = doubles;
    self->all = UINT64_MAX >> (MAX_WORDS - num_words), self->late = self->all & late;
    if (view_of(buffer, &self->view) < 0)
        goto failed;
    size_t num_bytes = 8 * (num_words - (seq_at > 0)); /* a number that is the last word is `done` itself */
    char *words = place_in(&self->view, at, (num_slots - 1) * stride + num_bytes);
    char *done = place_in(&self->view, done_at, 8), *begun = begun_at < 0 ? NULL : place_in(&self->view, begun_at, 8);
    if (words == NULL || done == NULL || (begun_at >= 0 && begun == NULL))
        goto failed;
    self->store = (rt_store){(rt_word *)begun, (rt_word *)done, num_slots, {words, stride, num_bytes}, {{0}}, 0};
    return (PyObject *)self;
failed:
    Py_DECREF((PyObject *)self);
    return NULL;
}

static void store_dealloc(PyObject *object)
{
    Store *self = (Store *)object;
    PyBuffer_Release(&self->out_view);
    for (int part = 0; part < RT_MAX_PARTS; part++)
        PyBuffer_Release(&self->part_views[part]);
    PyBuffer_Release(&self->view);
    Py_XDECREF(self->out);
    Py_XDECREF(self->dtype);
    Py_XDECREF(self->lead);
    Py_XDECREF(self->staged);
    Py_XDECREF(self->names);
    Py_XDECREF((PyObject *)self->row);
    free_object(object);
}

/* add_part(buffer, place of slot 0's, stride, bytes of one, dtype of what comes or None) */
static PyObject *store_add_part(PyObject *object, PyObject *args)
{
    Store *self = (Store *)object;
    PyObject *buffer, *dtype;
    Py_ssize_t at, stride, num_bytes;
    int part = self->store.num_parts;
    if (!PyArg_ParseTuple(args, "OnnnO", &buffer, &at, &stride, &num_bytes, &dtype))
        return NULL;
    if (part == RT_MAX_PARTS)
        return PyErr_Format(PyExc_ValueError, "a record has at most %d parts", RT_MAX_PARTS);
    if (view_of(buffer, &self->part_views[part]) < 0)
        return NULL;
    char *place = place_in(&self->part_views[part], at, (self->store.num_slots - 1) * stride + num_bytes);
    if (place == NULL)
        return NULL;
    self->store.parts[self->store.num_parts++] = (rt_part){place, stride, num_bytes};
    if (dtype != Py_None)
        self->dtype = Py_NewRef(dtype);
    Py_RETURN_NONE;
}

static PyObject *store_newest(PyObject *self, PyObject *unused)
{
    (void)unused;
    return PyLong_FromLongLong(rt_newest(&((Store *)self)->store));
}

/* Those words of the next record: of a row by their place, of a draft by their name. 0: it is neither, or not the next. */
static int next_words(const Store *self, PyObject *record, uint64_t which, int64_t *words)
{
    int is_row = PyTuple_Check(record), plain = !self->view.readonly && !(is_row && PyTuple_Size(record) != self->row_size);
    for (; plain && which != 0; which &= which - 1) {
        int index = __builtin_ctzll(which), at = index + (self->lead != NULL);
        PyObject *item = is_row ? Py_NewRef(PyTuple_GetItem(record, at)) : PyObject_GetAttr(record, PyTuple_GetItem(self->names, at));
        double number = 0;
        if (item != NULL && self->doubles >> index & 1) {
            number = PyFloat_AsDouble(item);
            memcpy(&words[index], &number, sizeof number);
        } else if (item != NULL)
            words[index] = PyLong_AsLongLong(item);
        plain = item != NULL && !((words[index] == -1 || number == -1) && PyErr_Occurred());
        Py_XDECREF(item);
    }
    return plain && words[self->seq_at] == rt_newest(&self->store) + 1;
}

/* The bytes that are to be a part; 0: they are not so many. */
static int part_bytes(const Store *self, int part, PyObject *object, const void **start)
{
    char *bytes;
    Py_ssize_t length;
    if (object == NULL || !PyBytes_Check(object) || PyBytes_AsStringAndSize(object, &bytes, &length) < 0)
        return 0;
    *start = bytes;
    return (size_t)length == self->store.parts[part].num_bytes;
}

/* Whether a row was written. Its bytes, if the store has parts, are its last items. */
static int write_row(const Store *self, PyObject *row)
{
    int64_t words[MAX_WORDS];
    const void *parts[RT_MAX_PARTS];
    int plain = PyTuple_Check(row) && next_words(self, row, self->all, words);
    for (int part = 0; plain && part < self->store.num_parts; part++)
        plain = part_bytes(self, part, PyTuple_GetItem(row, (self->lead != NULL) + self->num_words + part), &parts[part]);
    if (plain)
        rt_write(&self->store, words[self->seq_at], words, parts);
    PyErr_Clear();
    return plain;
}

static PyObject *store_write(PyObject *self, PyObject *row)
{
    return PyBool_FromLong(write_row((Store *)self, row));
}

/* stage(draft): its words but the late ones, which publish takes then */
static PyObject *store_stage(PyObject *object, PyObject *draft)
{
    Store *self = (Store *)object;
    Py_CLEAR(self->staged);
    if (next_words(self, draft, self->all & ~self->late, self->words))
        self->staged = Py_NewRef(draft);
    PyErr_Clear();
    Py_RETURN_NONE;
}

/* publish(array, row or draft, bytes...) -> whether it was: the array is part 0 */
static PyObject *store_publish(PyObject *object, ARGS)
{
    Store *self = (Store *)object;
    const void *parts[RT_MAX_PARTS];
    int plain = count > self->store.num_parts;
    plain = plain && next_words(self, args[1], args[1] == self->staged ? self->late : self->all, self->words);
    Py_CLEAR(self->staged);
    for (int part = 1; plain && part < self->store.num_parts; part++)
        plain = part_bytes(self, part, args[part + 1], &parts[part]);
    PyObject *dtype = plain ? PyObject_GetAttr(args[0], name_dtype) : NULL;
    Py_buffer view;
    if (dtype == self->dtype && dtype != NULL && PyObject_GetBuffer(args[0], &view, PyBUF_SIMPLE) == 0) {
        parts[0] = view.buf;
        if ((plain = (size_t)view.len == self->store.parts[0].num_bytes))
            rt_write(&self->store, self->words[self->seq_at], self->words, parts);
        PyBuffer_Release(&view);
    } else
        plain = 0;
    Py_XDECREF(dtype);
    PyErr_Clear();
    return PyBool_FromLong(plain);
}

/* A row with these words; `parts`: NULL, or one more bytes object for each item behind them. */
static PyObject *row_of(const Store *self, const int64_t *words, PyObject *const *parts)
{
    Py_ssize_t first = self->lead != NULL, tail = first + self->num_words;
    PyObject *row = ((allocfunc)PyType_GetSlot(self->row, Py_tp_alloc))(self->row, self->row_size);
    if (row != NULL && self->lead != NULL)
        PyTuple_SetItem(row, 0, Py_NewRef(self->lead));
    for (Py_ssize_t index = 0; row != NULL && index < self->num_words; index++) {
        double number;
        memcpy(&number, &words[index], sizeof number);
        PyObject *item = self->doubles >> index & 1 ? PyFloat_FromDouble(number) : PyLong_FromLongLong(words[index]);
        if (item == NULL || PyTuple_SetItem(row, first + index, item) < 0)
            Py_CLEAR(row);
    }
    for (Py_ssize_t index = tail; row != NULL && index < self->row_size; index++)
        PyTuple_SetItem(row, index, Py_NewRef(parts != NULL && index - tail < self->store.num_parts ? parts[index - tail] : no_bytes));
    return row;
}

/* read(seq) -> (status, row with its bytes or None) */
static PyObject *store_read(PyObject *object, PyObject *number)
{
    Store *self = (Store *)object;
    int64_t seq, words[MAX_WORDS];
    PyObject *parts[RT_MAX_PARTS] = {NULL}, *row = NULL;
    void *places[RT_MAX_PARTS] = {NULL};
    int with_parts = self->row_size > (self->lead != NULL) + self->num_words, whole = 1;
    if (as_int64(number, &seq) < 0)
        return NULL;
    for (int part = 0; with_parts && part < self->store.num_parts; part++) {
        parts[part] = PyBytes_FromStringAndSize(NULL, self->store.parts[part].num_bytes);
        whole = whole && parts[part] != NULL;
        places[part] = whole ? PyBytes_AsString(parts[part]) : NULL;
    }
    if (whole) {
        int status = rt_read(&self->store, seq, words, places);
        words[self->seq_at] = seq;
        PyObject *made = status == RT_OK ? row_of(self, words, parts) : Py_NewRef(Py_None);
        row = made == NULL ? NULL : Py_BuildValue("iN", status, made);
    }
    for (int part = 0; part < RT_MAX_PARTS; part++)
        Py_XDECREF(parts[part]);
    return row;
}

/* Where part 0 is to be copied to, whose view stays for the next call; NULL: not of its size, or not in one piece. */
static void *place_of(Store *self, PyObject *out)
{
    if (out != self->out) {
        Py_CLEAR(self->out);
        PyBuffer_Release(&self->out_view);
        if (PyObject_GetBuffer(out, &self->out_view, PyBUF_WRITABLE) < 0)
            return NULL;
        self->out = Py_NewRef(out);
    }
    return (size_t)self->out_view.len == self->store.parts[0].num_bytes ? self->out_view.buf : NULL;
}

/* read_into(seq, array) -> status; -1: not into this array */
static PyObject *store_read_into(PyObject *object, ARGS)
{
    Store *self = (Store *)object;
    int64_t seq;
    if (!takes(count, 2, 2) || as_int64(args[0], &seq) < 0)
        return NULL;
    void *places[RT_MAX_PARTS] = {place_of(self, args[1])};
    int status = places[0] == NULL ? -1 : rt_read(&self->store, seq, NULL, places);
    PyErr_Clear();
    return PyLong_FromLong(status);
}

/* read_by(seq, array, time) -> (status, row or None, when it was seen, when the copy was whole): record and array, as soon as
 * they are there, at the latest at that time */
static PyObject *store_read_by(PyObject *object, ARGS)
{
    Store *self = (Store *)object;
    int64_t seq, deadline_ns, words[MAX_WORDS], seen_ns = 0, copied_ns = 0;
    if (!takes(count, 3, 3) || as_int64(args[0], &seq) < 0 || as_int64(args[2], &deadline_ns) < 0)
        return NULL;
    void *places[RT_MAX_PARTS] = {place_of(self, args[1])};
    int status = -1;
    if (places[0] == NULL)
        PyErr_Clear();
    else if (deadline_ns == 0)
        status = rt_read(&self->store, seq, words, places);
    else if (seq <= rt_newest(&self->store)) { /* it came between the caller's look and this one */
        seen_ns = rt_now_ns();
        status = rt_read(&self->store, seq, words, places);
    }
    else {
        PyObject *out = self->out, *other; /* out of the reach of another thread, which may read into another array */
        Py_buffer view = self->out_view, other_view;
        self->out = NULL, self->out_view = (Py_buffer){0};
        Py_BEGIN_ALLOW_THREADS
        rt_spin_for(self->store.done, seq, deadline_ns);
        seen_ns = rt_now_ns();
        status = rt_read(&self->store, seq, words, places);
        copied_ns = rt_now_ns(); /* before it waits for the interpreter's lock */
        Py_END_ALLOW_THREADS
        other = self->out, other_view = self->out_view;
        self->out = out, self->out_view = view;
        Py_XDECREF(other);
        PyBuffer_Release(&other_view);
    }
    copied_ns = copied_ns != 0 ? copied_ns : rt_now_ns();
    PyObject *row = status == RT_OK ? row_of(self, words, NULL) : Py_NewRef(Py_None);
    return row == NULL ? NULL : Py_BuildValue("iNLL", status, row, (long long)seen_ns, (long long)copied_ns);
}

static PyMethodDef store_methods[] = {
    {"add_part", store_add_part, METH_VARARGS, NULL},
    {"newest", store_newest, METH_NOARGS, NULL},
    {"write", store_write, METH_O, NULL},
    {"stage", store_stage, METH_O, NULL},
    FAST("publish", store_publish),
    {"read", store_read, METH_O, NULL},
    FAST("read_into", store_read_into),
    FAST("read_by", store_read_by),
    {NULL, NULL, 0, NULL},
};

static PyType_Slot store_slots[] = {
    {Py_tp_new, store_new}, {Py_tp_dealloc, store_dealloc}, {Py_tp_methods, store_methods}, {0, NULL}};

static PyType_Spec store_spec = {"rtcore._tick._compiled.Store", sizeof(Store), 0, Py_TPFLAGS_DEFAULT, store_slots};

/* -- Words --------------------------------------------------------------------------------------------------------------- */

typedef struct {
    PyObject_HEAD
    Py_buffer view;
} Words;

static PyObject *words_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    (void)kwargs;
    PyObject *buffer;
    Words *self;
    if (!PyArg_ParseTuple(args, "O", &buffer) || (self = new_object(type)) == NULL)
        return NULL;
    if (view_of(buffer, &self->view) == 0 && place_in(&self->view, 0, self->view.len) != NULL)
        return (PyObject *)self;
    Py_DECREF((PyObject *)self);
    return NULL;
}

static void words_dealloc(PyObject *self)
{
    PyBuffer_Release(&((Words *)self)->view);
    free_object(self);
}

static Py_ssize_t words_length(PyObject *self)
{
    return ((Words *)self)->view.len / 8;
}

static rt_word *word_at(PyObject *self, PyObject *key)
{
    int64_t index;
    if (as_int64(key, &index) < 0)
        return NULL;
    if (index >= 0 && index < words_length(self))
        return (rt_word *)((Words *)self)->view.buf + index;
    return (void *)PyErr_Format(PyExc_IndexError, "no word %lld of %zd", (long long)index, words_length(self));
}

static PyObject *words_get(PyObject *self, PyObject *key)
{
    rt_word *word = word_at(self, key);
    return word == NULL ? NULL : PyLong_FromLongLong(rt_load_ordered(word));
}

static int words_set(PyObject *self, PyObject *key, PyObject *number)
{
    int64_t value;
    rt_word *word = word_at(self, key);
    if (word == NULL || number == NULL || as_int64(number, &value) < 0)
        return -1;
    if (((Words *)self)->view.readonly) {
        PyErr_SetString(PyExc_TypeError, "cannot modify read-only memory");
        return -1;
    }
    rt_store_ordered(word, value);
    return 0;
}

/* wake(index, bits) -> how many of those that sleep on the word with one of these bits */
static PyObject *words_wake(PyObject *self, ARGS)
{
    rt_word *word;
    int64_t bits;
    if (!takes(count, 2, 2) || (word = word_at(self, args[0])) == NULL || as_int64(args[1], &bits) < 0)
        return NULL;
    return PyLong_FromLong(rt_futex_wake(word, (uint32_t)bits));
}

/* wait(index, value seen, bits, deadline) -> 0: woken, or the error's number: see rt_futex_wait */
static PyObject *words_wait(PyObject *self, ARGS)
{
    rt_word *word;
    int64_t seen, bits, deadline_ns;
    if (!takes(count, 4, 4) || (word = word_at(self, args[0])) == NULL || as_int64(args[1], &seen) < 0 ||
        as_int64(args[2], &bits) < 0 || as_int64(args[3], &deadline_ns) < 0)
        return NULL;
    int why;
    Py_BEGIN_ALLOW_THREADS
    why = rt_futex_wait(word, seen, (uint32_t)bits, deadline_ns);
    Py_END_ALLOW_THREADS
    if (why == EINTR && PyErr_CheckSignals() < 0)
        return NULL;
    return PyLong_FromLong(why);
}

/* sample(value): counted as memory.counters.Histogram.add does, whose words these are; one writer, torn by no reader */
static PyObject *words_sample(PyObject *self, PyObject *number)
{
    enum { COUNT, SUM, SUM_SQUARES, MIN, MAX, HEAD = 8, SUB_BITS = 7 }; /* memory/layout/records.py */
    int64_t value, *words = ((Words *)self)->view.buf, last = words_length(self) - HEAD - 1, bucket;
    if (as_int64(number, &value) < 0)
        return NULL;
    if (((Words *)self)->view.readonly || last < 0)
        return PyErr_Format(PyExc_TypeError, "no histogram to write to");
    value = value < 0 ? 0 : value;
    bucket = value;
    if (value >= 1 << SUB_BITS) {
        int shift = 63 - __builtin_clzll((unsigned long long)value) - SUB_BITS;
        bucket = ((int64_t)shift << SUB_BITS) + (value >> shift);
    }
    if (words[COUNT] == 0 || value < words[MIN])
        words[MIN] = value;
    if (value > words[MAX])
        words[MAX] = value;
    words[SUM] += value;
    double squares;
    memcpy(&squares, &words[SUM_SQUARES], sizeof squares);
    squares += (double)value * (double)value;
    memcpy(&words[SUM_SQUARES], &squares, sizeof squares);
    words[HEAD + (bucket < last ? bucket : last)]++;
    words[COUNT]++;
    Py_RETURN_NONE;
}

static PyMethodDef words_methods[] = {
    FAST("wake", words_wake),
    FAST("wait", words_wait),
    {"sample", words_sample, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot words_slots[] = {
    {Py_tp_new, words_new},          {Py_tp_dealloc, words_dealloc},    {Py_tp_methods, words_methods},
    {Py_mp_length, words_length},    {Py_mp_subscript, words_get},      {Py_mp_ass_subscript, words_set},
    {0, NULL},
};

static PyType_Spec words_spec = {"rtcore._tick._compiled.Words", sizeof(Words), 0, Py_TPFLAGS_DEFAULT, words_slots};

/* -- Waker: memory.waiting's --------------------------------------------------------------------------------------------- */

enum { GROUP = 32 }; /* workers that sleep on one word for their jobs, each by a bit of its own */

typedef struct {
    PyObject_HEAD
    Py_buffer control, ring;
    rt_word *frame; /* number of the newest one */
    char *posted, *asleep; /* of group 0, of worker 0 */
    Py_ssize_t posted_stride, asleep_stride, num_workers;
    int64_t *workers; /* those of the present call */
    uint32_t *bits; /* of each group; 0 between two calls */
} Waker;

static rt_word *posted_of(const Waker *self, int64_t worker)
{
    return (rt_word *)(self->posted + worker / GROUP * self->posted_stride);
}

static rt_word *asleep_of(const Waker *self, int64_t worker)
{
    return (rt_word *)(self->asleep + worker * self->asleep_stride);
}

/* Waker(control segment, place of group 0's `posted`, stride, place of worker 0's `asleep`, stride, number of workers,
 *       ring segment, place of its `done`) */
static PyObject *waker_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    (void)kwargs;
    PyObject *control, *ring;
    Py_ssize_t posted_at, posted_stride, asleep_at, asleep_stride, num_workers, frame_at;
    if (!PyArg_ParseTuple(args, "OnnnnnOn", &control, &posted_at, &posted_stride, &asleep_at, &asleep_stride, &num_workers,
                          &ring, &frame_at))
        return NULL;
    if (num_workers < 1)
        return PyErr_Format(PyExc_ValueError, "%zd workers, expected one at least", num_workers);
    Waker *self = new_object(type);
    if (self == NULL)
        return NULL;
    Py_ssize_t last = num_workers - 1;
    self->posted_stride = posted_stride, self->asleep_stride = asleep_stride, self->num_workers = num_workers;
    if (PyObject_GetBuffer(control, &self->control, PyBUF_WRITABLE) == 0 &&
        (self->posted = place_in(&self->control, posted_at, last / GROUP * posted_stride + 8)) != NULL &&
        (self->asleep = place_in(&self->control, asleep_at, last * asleep_stride + 8)) != NULL &&
        PyObject_GetBuffer(ring, &self->ring, PyBUF_WRITABLE) == 0 &&
        (self->frame = (rt_word *)place_in(&self->ring, frame_at, 8)) != NULL) {
        self->workers = PyMem_Malloc(num_workers * sizeof *self->workers);
        self->bits = PyMem_Calloc(last / GROUP + 1, sizeof *self->bits);
        if (self->workers != NULL && self->bits != NULL)
            return (PyObject *)self;
        PyErr_NoMemory();
    }
    Py_DECREF((PyObject *)self);
    return NULL;
}

static void waker_dealloc(PyObject *object)
{
    Waker *self = (Waker *)object;
    PyBuffer_Release(&self->control);
    PyBuffer_Release(&self->ring);
    PyMem_Free(self->workers);
    PyMem_Free(self->bits);
    free_object(object);
}

/* How many workers a call is for; -1: not all of them are any. */
static Py_ssize_t workers_in(Waker *self, PyObject *workers)
{
    Py_ssize_t count = PySequence_Size(workers);
    if (count > self->num_workers)
        PyErr_Format(PyExc_ValueError, "%zd workers of %zd", count, self->num_workers);
    for (Py_ssize_t i = 0; i < count && !PyErr_Occurred(); i++) {
        PyObject *worker = PySequence_GetItem(workers, i);
        if (worker == NULL || as_int64(worker, &self->workers[i]) < 0 || self->workers[i] < 0 ||
            self->workers[i] >= self->num_workers)
            PyErr_Format(PyExc_IndexError, "not one of %zd workers: %R", self->num_workers, worker);
        Py_XDECREF(worker);
    }
    return PyErr_Occurred() ? -1 : count;
}

static void wake_idle(Waker *self, Py_ssize_t count)
{
    for (Py_ssize_t i = 0; i < count; i++)
        if (rt_is_asleep(asleep_of(self, self->workers[i])))
            self->bits[self->workers[i] / GROUP] |= UINT32_C(1) << self->workers[i] % GROUP;
    for (Py_ssize_t i = 0; i < count; i++) {
        uint32_t *bits = &self->bits[self->workers[i] / GROUP];
        if (*bits != 0)
            rt_futex_wake(posted_of(self, self->workers[i]), *bits);
        *bits = 0;
    }
}

/* Those of the present call have jobs: say so to their groups, wake who sleeps. */
static void wake_for_jobs(Waker *self, Py_ssize_t count)
{
    for (Py_ssize_t i = 0; i < count; i++)
        self->bits[self->workers[i] / GROUP] = 1;
    for (Py_ssize_t i = 0; i < count; i++) {
        uint32_t *is_counted = &self->bits[self->workers[i] / GROUP];
        rt_word *posted = posted_of(self, self->workers[i]);
        if (*is_counted) /* (W11) after the jobs */
            atomic_store_explicit(posted, atomic_load_explicit(posted, memory_order_relaxed) + 1, memory_order_release);
        *is_counted = 0;
    }
    rt_before_asleep();
    wake_idle(self, count);
}

static PyObject *waker_for_jobs(PyObject *object, PyObject *workers)
{
    Py_ssize_t count = workers_in((Waker *)object, workers);
    if (count < 0)
        return NULL;
    wake_for_jobs((Waker *)object, count);
    Py_RETURN_NONE;
}

static PyObject *waker_ahead(PyObject *object, PyObject *workers)
{
    Py_ssize_t count = workers_in((Waker *)object, workers);
    if (count < 0)
        return NULL;
    wake_idle((Waker *)object, count);
    Py_RETURN_NONE;
}

static PyObject *waker_for_frame(PyObject *object, PyObject *workers)
{
    Waker *self = (Waker *)object;
    Py_ssize_t count = workers_in(self, workers), i = 0;
    if (count < 0)
        return NULL;
    rt_before_asleep();
    while (i < count && !rt_is_asleep(asleep_of(self, self->workers[i])))
        i++;
    if (i < count)
        rt_futex_wake(self->frame, UINT32_MAX);
    Py_RETURN_NONE;
}

static PyMethodDef waker_methods[] = {
    {"for_frame", waker_for_frame, METH_O, NULL},
    {"for_jobs", waker_for_jobs, METH_O, NULL},
    {"ahead", waker_ahead, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot waker_slots[] = {
    {Py_tp_new, waker_new}, {Py_tp_dealloc, waker_dealloc}, {Py_tp_methods, waker_methods}, {0, NULL}};

static PyType_Spec waker_spec = {"rtcore._tick._compiled.Waker", sizeof(Waker), 0, Py_TPFLAGS_DEFAULT, waker_slots};

/* -- jobs ---------------------------------------------------------------------------------------------------------------- */

enum { WORKER, OBS_TICK, DUE_TICK, HOLD, FRAME_SEQ, BOOKED_NS, PHASE_SEQ, GENERATION, JOB_SEQ, CONTEXT, JOB_SIZE }; /* scheduling/jobs.py */

static int is_job(PyObject *job)
{
    return PyTuple_Check(job) && PyTuple_Size(job) == JOB_SIZE;
}

/* A job like this one, of whose items some are others. Takes those: NULL is no item, but an error. */
static PyObject *job_with(PyObject *job, int first, int count, PyObject *const *others)
{
    PyTypeObject *type = Py_TYPE(job);
    PyObject *made = ((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, JOB_SIZE);
    int whole = made != NULL;
    for (int index = 0; index < JOB_SIZE; index++) {
        int is_other = index >= first && index < first + count;
        PyObject *item = is_other ? others[index - first] : Py_NewRef(PyTuple_GetItem(job, index));
        whole = whole && item != NULL;
        if (made != NULL && item != NULL)
            PyTuple_SetItem(made, index, item);
        else
            Py_XDECREF(item);
    }
    if (!whole)
        Py_CLEAR(made);
    return made;
}

/* book(stores, jobs, generations, waker or None, frame_seq, booked_ns, phase_seq) -> those that were written, with what the
 * call says of them: all, and who sleeps was woken; or some of the first, and nobody was */
static PyObject *book(PyObject *module_, ARGS)
{
    (void)module_;
    if (!takes(count, 7, 7))
        return NULL;
    Waker *waker = args[3] == Py_None ? NULL : (Waker *)args[3];
    if (!PyList_Check(args[0]) || !PyDict_Check(args[2]) || (waker != NULL && Py_TYPE(args[3]) != waker_type))
        return PyErr_Format(PyExc_TypeError, "expected stores, jobs, generations, and who wakes");
    Py_ssize_t num_jobs = PySequence_Size(args[1]), i = 0;
    PyObject *written = num_jobs < 0 ? NULL : PyList_New(0), *job = NULL;
    for (; written != NULL && i < num_jobs && (waker == NULL || i < waker->num_workers); i++) {
        int64_t worker;
        Py_XDECREF(job);
        if ((job = PySequence_GetItem(args[1], i)) == NULL)
            break;
        if (!is_job(job) || as_int64(PyTuple_GetItem(job, WORKER), &worker) < 0 || worker < 0 || worker >= PyList_Size(args[0]))
            break;
        PyObject *object = PyList_GetItem(args[0], worker);
        if (Py_TYPE(object) != store_type)
            break;
        Store *store = (Store *)object;
        PyObject *generation = PyDict_GetItemWithError(args[2], PyTuple_GetItem(job, WORKER));
        PyObject *others[] = {Py_NewRef(args[4]), Py_NewRef(args[5]), Py_NewRef(args[6]),
                              generation == NULL ? PyLong_FromLong(0) : Py_NewRef(generation),
                              PyLong_FromLongLong(rt_newest(&store->store) + 1)};
        PyObject *booked = job_with(job, FRAME_SEQ, CONTEXT - FRAME_SEQ, others);
        int plain = booked != NULL && write_row(store, booked);
        if (plain && PyList_Append(written, booked) < 0)
            Py_CLEAR(written);
        Py_XDECREF(booked);
        if (!plain)
            break;
        if (waker != NULL)
            waker->workers[i] = worker;
    }
    PyErr_Clear();
    Py_XDECREF(job);
    if (waker != NULL && i == num_jobs)
        wake_for_jobs(waker, num_jobs);
    return written == NULL ? PyErr_NoMemory() : written;
}

/* give_context(sizes, job, pieces, seed, episode, is_first, state_tick, features_tick, state) -> the job with its context, or
 * None: one of the pieces has no answer. `sizes`: bytes of an action, ticks of `committed`, bytes of state and features, which
 * item of an answer its actions are. */
static PyObject *give_context(PyObject *module_, ARGS)
{
    enum { ACTION, TICKS, STATE, FEATURES, ACTIONS, NUM_SIZES, NUM_WORDS = 8 }; /* loop/job_context.py */
    enum { FIRST_TICK, NUM_TICKS, KNOWN, NUM_NUMBERS, ANSWER = NUM_NUMBERS, CHUNK_INDEX };
    (void)module_;
    int64_t size[NUM_SIZES], own[HOLD], words[NUM_WORDS], piece[NUM_NUMBERS], index;
    char *state, *made, *actions;
    Py_ssize_t state_bytes, actions_bytes;
    if (!takes(count, 9, 9))
        return NULL;
    int plain = is_job(args[1]) && PyList_Check(args[2]) && int64s(args[0], NUM_SIZES, size) && int64s(args[1], HOLD, own) &&
                PyBytes_Check(args[8]) && PyBytes_AsStringAndSize(args[8], &state, &state_bytes) == 0 && state_bytes == size[STATE];
    for (int at = 0; plain && at < 5; at++) /* behind worker, seed and tick: episode, is_first, the delay, state_tick, features_tick */
        plain = as_int64(args[3 + at], &words[at == 0 ? 1 : at < 3 ? at + 2 : at + 3]) == 0;
    if (!plain) {
        PyErr_Clear();
        Py_RETURN_NONE;
    }
    words[0] = own[WORKER], words[2] = own[OBS_TICK], words[5] = own[DUE_TICK] - own[OBS_TICK];
    size_t mask_at = sizeof words + ALIGNED(size[TICKS] * size[ACTION]), state_at = mask_at + ALIGNED(size[TICKS]);
    PyObject *context = PyBytes_FromStringAndSize(NULL, state_at + size[STATE] + size[FEATURES]);
    if (context == NULL)
        return NULL;
    made = PyBytes_AsString(context);
    memcpy(made, words, sizeof words);
    memset(made + sizeof words, 0, state_at - sizeof words);
    memcpy(made + state_at, state, size[STATE]);
    memset(made + state_at + size[STATE], 0, size[FEATURES]);
    for (Py_ssize_t at = 0; plain && at < PyList_Size(args[2]); at++) {
        PyObject *item = PyList_GetItem(args[2], at), *answer;
        plain = int64s(item, NUM_NUMBERS, piece) && PyTuple_Size(item) > CHUNK_INDEX &&
                as_int64(PyTuple_GetItem(item, CHUNK_INDEX), &index) == 0 && PyTuple_Check(answer = PyTuple_GetItem(item, ANSWER)) &&
                PyTuple_Size(answer) > size[ACTIONS] && PyBytes_Check(PyTuple_GetItem(answer, size[ACTIONS])) &&
                PyBytes_AsStringAndSize(PyTuple_GetItem(answer, size[ACTIONS]), &actions, &actions_bytes) == 0;
        int64_t place = piece[FIRST_TICK] - own[OBS_TICK] - 1, length = piece[NUM_TICKS];
        plain = plain && place >= 0 && index >= 0 && length >= 0 && (index + length) * size[ACTION] <= actions_bytes;
        length = length < size[TICKS] - place ? length : size[TICKS] - place;
        if (!plain || length <= 0)
            continue;
        memcpy(made + sizeof words + place * size[ACTION], actions + index * size[ACTION], length * size[ACTION]);
        memset(made + mask_at + place, (int)piece[KNOWN], length);
    }
    if (plain)
        return job_with(args[1], CONTEXT, 1, &context);
    Py_DECREF(context);
    PyErr_Clear();
    Py_RETURN_NONE;
}

/* -- the module ---------------------------------------------------------------------------------------------------------- */

static PyObject *fence(PyObject *self, PyObject *unused)
{
    (void)self, (void)unused;
    atomic_thread_fence(memory_order_seq_cst);
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"fence", fence, METH_NOARGS, NULL},
    FAST("book", book),
    FAST("give_context", give_context),
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_compiled", NULL, -1, functions, NULL, NULL, NULL, NULL};

static PyTypeObject *add_type(PyObject *into, PyType_Spec *spec)
{
    PyTypeObject *type = (PyTypeObject *)PyType_FromSpec(spec);
    return type != NULL && PyModule_AddType(into, type) == 0 ? type : NULL;
}

PyMODINIT_FUNC PyInit__compiled(void)
{
    PyObject *made = PyModule_Create(&module);
    name_dtype = PyUnicode_InternFromString("dtype");
    no_bytes = PyBytes_FromStringAndSize("", 0);
    if (made == NULL || name_dtype == NULL || no_bytes == NULL || (store_type = add_type(made, &store_spec)) == NULL ||
        add_type(made, &words_spec) == NULL || (waker_type = add_type(made, &waker_spec)) == NULL ||
        PyModule_AddIntConstant(made, "VERSION", RT_VERSION) < 0)
        Py_CLEAR(made);
    return made;
}
