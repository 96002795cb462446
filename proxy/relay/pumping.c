/* The shortest way of streamed chunks: from one socket to another in compiled code, as long as each is like
 * the one before but for its text. Python and the event loop hear of a burst of chunks, not of each.
 *
 * A Stream says what its chunks look like (chunks.py), from which socket they come and to which they go. A
 * Pump waits for many with an epoll descriptor of its own, which the loop watches. A stream that brings what
 * is not whole chunks of its shape leaves with the bytes that were read, one whose client is slow with those
 * that were not sent: the transports go on. The sockets are theirs: a stream is off before either closes. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <structmember.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { READ_BYTES = 65536, BATCH = 64, MOST_DIGITS = 3 }; /* of a chunk's size, as in chunks.py */

typedef struct {
    PyObject_HEAD
    int source, target, on;
    PyObject *key, *before, *after;
    long long tokens, last_ns;
} Stream;

typedef struct {
    PyObject_HEAD
    int epoll;
    PyObject *chunk; /* called with (key, t_ns, 1) for each token */
    char read[READ_BYTES];
} Pump;

static PyTypeObject StreamType, PumpType;

/* --- what chunks are alike ----------------------------------------------------------------------------- */

/* Whether bytes are the text of one JSON string (RFC 8259, section 7), and not empty. */
static int is_text(const unsigned char *at, const unsigned char *end)
{
    if (at >= end)
        return 0;
    while (at < end) {
        unsigned char one = *at++;
        if (one == '"' || one < 0x20)
            return 0;
        if (one != '\\')
            continue;
        if (at >= end || !strchr("\"\\/bfnrtu", *at) || !*at)
            return 0;
        if (*at++ != 'u')
            continue;
        for (int digit = 0; digit < 4; digit++, at++)
            if (at >= end || !Py_ISXDIGIT(*at))
                return 0;
    }
    return 1;
}

/* How many bytes the chunk that begins here has; 0: it is not one whole chunk of the stream's shape. */
static Py_ssize_t one_chunk(const Stream *stream, const char *data, Py_ssize_t size)
{
    Py_ssize_t before = PyBytes_GET_SIZE(stream->before), after = PyBytes_GET_SIZE(stream->after);
    Py_ssize_t content = 0, line = 0;
    for (; line < size && line < MOST_DIGITS; line++) {
        char one = data[line];
        int digit = one >= '0' && one <= '9' ? one - '0' : one >= 'a' && one <= 'f' ? one - 'a' + 10 : -1;
        if (digit < 0 || (line == 0 && digit == 0))
            break;
        content = content * 16 + digit;
    }
    Py_ssize_t total = line + 2 + content + 2; /* the last CRLF belongs to what stands after the text */
    if (line == 0 || total > size || memcmp(data + line, "\r\n", 2) || content + 2 <= before + after)
        return 0;
    const char *start = data + line + 2, *end = data + total - after;
    if (memcmp(start, PyBytes_AS_STRING(stream->before), before)
        || memcmp(end, PyBytes_AS_STRING(stream->after), after)
        || !is_text((const unsigned char *)start + before, (const unsigned char *)end))
        return 0;
    return total;
}

/* How many chunks of the shape the bytes are; 0: they are not, or not only. */
static Py_ssize_t count_chunks(const Stream *stream, const char *data, Py_ssize_t size)
{
    Py_ssize_t found = 0;
    while (size > 0) {
        Py_ssize_t total = one_chunk(stream, data, size);
        if (!total)
            return 0;
        data += total;
        size -= total;
        found++;
    }
    return found;
}

/* --- Stream -------------------------------------------------------------------------------------------- */

static PyObject *stream_new(PyTypeObject *type, PyObject *args, PyObject *names)
{
    static char *keywords[] = {"source", "target", "before", "after", "key", NULL};
    PyObject *before, *after, *key;
    int source, target;
    if (!PyArg_ParseTupleAndKeywords(
            args, names, "iiSSO!:Stream", keywords, &source, &target, &before, &after, &PyLong_Type, &key))
        return NULL;
    Stream *self = (Stream *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->source = source;
    self->target = target;
    self->before = Py_NewRef(before);
    self->after = Py_NewRef(after);
    self->key = Py_NewRef(key);
    return (PyObject *)self;
}

static void stream_dealloc(Stream *self)
{
    Py_DECREF(self->before);
    Py_DECREF(self->after);
    Py_DECREF(self->key);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyObject *stream_count(Stream *self, PyObject *data)
{
    if (!PyBytes_Check(data))
        return PyErr_Format(PyExc_TypeError, "bytes expected");
    return PyLong_FromSsize_t(count_chunks(self, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data)));
}

static PyMethodDef stream_methods[] = {
    {"count", (PyCFunction)stream_count, METH_O,
     "How many chunks of the shape the bytes are; 0: they are not, or not only."},
    {NULL},
};

static PyMemberDef stream_members[] = {
    {"tokens", T_LONGLONG, offsetof(Stream, tokens), READONLY, "passed so far"},
    {"last_ns", T_LONGLONG, offsetof(Stream, last_ns), READONLY, "when the last ones came; 0: none did"},
    {NULL},
};

static PyTypeObject StreamType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "proxy.relay.pumping.Stream",
    .tp_doc = "Stream(source, target, before, after, key): two descriptors, the shape of the chunks between.",
    .tp_basicsize = sizeof(Stream),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = stream_new,
    .tp_dealloc = (destructor)stream_dealloc,
    .tp_methods = stream_methods,
    .tp_members = stream_members,
};

/* --- Pump ---------------------------------------------------------------------------------------------- */

static PyObject *pump_new(PyTypeObject *type, PyObject *args, PyObject *names)
{
    static char *keywords[] = {"chunk", NULL};
    PyObject *chunk;
    if (!PyArg_ParseTupleAndKeywords(args, names, "O:Pump", keywords, &chunk))
        return NULL;
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    Pump *self = (Pump *)type->tp_alloc(type, 0);
    if (self == NULL) {
        close(epoll);
        return NULL;
    }
    self->epoll = epoll;
    self->chunk = Py_NewRef(chunk);
    return (PyObject *)self;
}

static void pump_dealloc(Pump *self)
{
    close(self->epoll);
    Py_DECREF(self->chunk);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyObject *pump_fileno(Pump *self, PyObject *Py_UNUSED(none))
{
    return PyLong_FromLong(self->epoll);
}

/* Have the kernel tell of what comes for a stream, and of what is there already; -1 on error. */
static int watch(Pump *self, Stream *stream, int operation)
{
    struct epoll_event event = {EPOLLIN | EPOLLRDHUP | EPOLLET, {.ptr = stream}};
    return epoll_ctl(self->epoll, operation, stream->source, &event);
}

static PyObject *pump_put(Pump *self, PyObject *object)
{
    Stream *stream = (Stream *)object;
    if (!Py_IS_TYPE(object, &StreamType) || stream->on)
        return PyErr_Format(PyExc_ValueError, "a Stream that is not on a pump expected");
    if (watch(self, stream, EPOLL_CTL_ADD) < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    stream->on = 1;
    Py_INCREF(stream); /* the kernel's */
    Py_RETURN_NONE;
}

static void off(Pump *self, Stream *stream)
{
    if (!stream->on)
        return;
    stream->on = 0;
    watch(self, stream, EPOLL_CTL_DEL);
    Py_DECREF(stream);
}

static PyObject *pump_take(Pump *self, PyObject *stream)
{
    if (!Py_IS_TYPE(stream, &StreamType))
        return PyErr_Format(PyExc_TypeError, "a Stream expected");
    off(self, (Stream *)stream);
    Py_RETURN_NONE;
}

/* Off the pump, with what was read but not sent, or was read and is none of its chunks, or why it could not
 * be read (errno, which a socket tells but once); -1 on error. */
static int leave(Pump *self, Stream *stream, PyObject *left, const char *unsent, Py_ssize_t unsent_size,
    const char *unread, Py_ssize_t unread_size, int why)
{
    off(self, stream);
    PyObject *one = Py_BuildValue("Oy#y#i", stream, unsent, unsent_size, unread, unread_size, why);
    int failed = one == NULL || PyList_Append(left, one);
    Py_XDECREF(one);
    return failed ? -1 : 0;
}

/* What the meter is to know of tokens that came just now; -1 on error. It runs Python, which may take any
 * stream off. */
static int tell(Pump *self, Stream *stream, Py_ssize_t tokens, PyObject *told)
{
    PyObject *t_ns = PyLong_FromLongLong(stream->last_ns), *one = PyLong_FromLong(1);
    int failed = t_ns == NULL || one == NULL;
    for (; tokens > 0 && !failed; tokens--) {
        PyObject *words[] = {stream->key, t_ns, one};
        PyObject *chunk = PyObject_Vectorcall(self->chunk, words, 3, NULL);
        failed = chunk == NULL || PyList_Append(told, chunk);
        Py_XDECREF(chunk);
    }
    Py_XDECREF(t_ns);
    Py_XDECREF(one);
    return failed ? -1 : 0;
}

/* One read of a stream; -1 on error. */
static int pass(Pump *self, Stream *stream, unsigned events, PyObject *told, PyObject *left)
{
    Py_ssize_t size = recv(stream->source, self->read, READ_BYTES, MSG_DONTWAIT);
    if (size < 0 && errno == EAGAIN)
        return 0;
    if (size <= 0) /* at its end the transport reads that, too */
        return leave(self, stream, left, "", 0, "", 0, size < 0 ? errno : 0);
    Py_ssize_t tokens = count_chunks(stream, self->read, size);
    if (!tokens)
        return leave(self, stream, left, "", 0, self->read, size, 0);
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    stream->last_ns = now.tv_sec * 1000000000LL + now.tv_nsec;
    stream->tokens += tokens;
    Py_ssize_t sent = send(stream->target, self->read, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < size) { /* its transport waits until it can go on, or is told why not */
        sent = sent < 0 ? 0 : sent;
        if (leave(self, stream, left, self->read + sent, size - sent, "", 0, 0))
            return -1;
    } else if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR) && size < READ_BYTES) {
        if (leave(self, stream, left, "", 0, "", 0, 0))
            return -1;
    } else if (size == READ_BYTES && watch(self, stream, EPOLL_CTL_MOD) < 0) { /* more, after others' turn */
        if (leave(self, stream, left, "", 0, "", 0, errno))
            return -1;
    }
    return tell(self, stream, tokens, told);
}

static PyObject *pump_run(Pump *self, PyObject *Py_UNUSED(none))
{
    struct epoll_event events[BATCH];
    PyObject *told = PyList_New(0), *left = PyList_New(0);
    if (told == NULL || left == NULL) {
        Py_XDECREF(told);
        Py_XDECREF(left);
        return NULL;
    }
    int count = epoll_wait(self->epoll, events, BATCH, 0);
    for (int at = 0; at < count; at++)
        Py_INCREF(events[at].data.ptr); /* Python runs below, and may take any of them off */
    for (int at = 0; at < count; at++) {
        Stream *stream = events[at].data.ptr;
        if (stream->on && pass(self, stream, events[at].events, told, left) < 0)
            PyErr_WriteUnraisable((PyObject *)stream); /* no memory: the others are not to suffer for it */
        Py_DECREF(stream);
    }
    return Py_BuildValue("NN", told, left);
}

static PyMethodDef pump_methods[] = {
    {"fileno", (PyCFunction)pump_fileno, METH_NOARGS, "Readable while there is something to run."},
    {"put", (PyCFunction)pump_put, METH_O, "Pass on what comes for a stream from now on; raises OSError."},
    {"take", (PyCFunction)pump_take, METH_O, "Do so no more."},
    {"run", (PyCFunction)pump_run, METH_NOARGS,
     "Pass on what came, at once: (chunks, [(stream that left, bytes not sent, bytes not taken, errno)])."},
    {NULL},
};

static PyTypeObject PumpType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "proxy.relay.pumping.Pump",
    .tp_doc = "Pump(chunk): passes streams on; chunk(key, t_ns, 1) makes what is told of each token.",
    .tp_basicsize = sizeof(Pump),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = pump_new,
    .tp_dealloc = (destructor)pump_dealloc,
    .tp_methods = pump_methods,
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "pumping", "Streamed chunks, from socket to socket.", -1};

PyMODINIT_FUNC PyInit_pumping(void)
{
    PyObject *made = PyModule_Create(&module);
    if (made == NULL || PyModule_AddType(made, &StreamType) || PyModule_AddType(made, &PumpType)) {
        Py_XDECREF(made);
        return NULL;
    }
    return made;
}
