// Stream capture and graphs.
//
// While a stream captures, its work becomes nodes of a graph, each after the stream's frontier: the
// nodes that the stream's next work must follow. An event recorded there carries the frontier, and
// a stream that waits for it joins the capture. A launch replays the nodes in any order that the
// graph allows; the arguments are those of the capture, the memory's contents those of the replay.
#include "trace.h"
#include <thread>

struct CUgraph_st {
    emulator::nodes_ref nodes;
};

struct CUgraphExec_st {
    emulator::nodes_ref nodes;
    emulator::operation_ref last; // launches of one graph do not overlap
};

namespace emulator
{

struct capture {
    cudaStreamCaptureMode mode;
    std::thread::id thread;
    cudaStream_t origin;
    std::vector<node> nodes;
    std::set<cudaStream_t> members;
    bool broken;
};

static std::set<capture *> captures; // under way
static std::set<cudaGraph_t> graphs;
static std::set<cudaGraphExec_t> executables;
static thread_local cudaStreamCaptureMode mode_of_thread = cudaStreamCaptureModeGlobal;

long live_graphs()
{
    return long(graphs.size() + executables.size());
}

void invalidate(capture *captured)
{
    captured->broken = true;
}

void capture_add(cudaStream_t stream, work run)
{
    std::vector<node> &nodes = stream->captured->nodes;
    nodes.push_back({std::move(run), stream->frontier});
    stream->frontier = {nodes.size() - 1};
}

void capture_record(cudaStream_t stream, cudaEvent_t event)
{
    event->captured = stream->captured;
    event->frontier = stream->frontier;
}

cudaError_t capture_join(cudaStream_t stream, cudaEvent_t event)
{
    // An event from outside the capture, or from another one.
    if (stream->captured && event->captured != stream->captured) {
        invalidate(stream->captured.get());
        return event->captured ? cudaErrorStreamCaptureMerge : cudaErrorStreamCaptureIsolation;
    }
    if (!captures.count(event->captured.get()))
        return cudaErrorCapturedEvent;
    if (!stream->captured) {
        stream->captured = event->captured;
        stream->frontier.clear();
        stream->captured->members.insert(stream);
    }
    std::set<size_t> joined(stream->frontier.begin(), stream->frontier.end());
    joined.insert(event->frontier.begin(), event->frontier.end());
    stream->frontier.assign(joined.begin(), joined.end());
    return cudaSuccess;
}

cudaError_t check_unsafe()
{
    bool forbidden = false;
    for (capture *c : captures) {
        bool mine = c->thread == std::this_thread::get_id();
        if (mode_of_thread == cudaStreamCaptureModeRelaxed ||
            c->mode == cudaStreamCaptureModeRelaxed)
            continue;
        if (mine || (c->mode == cudaStreamCaptureModeGlobal &&
                     mode_of_thread == cudaStreamCaptureModeGlobal)) {
            invalidate(c);
            forbidden = true;
        }
    }
    return forbidden ? cudaErrorStreamCaptureUnsupported : cudaSuccess;
}

cudaError_t check_not_capturing(cudaStream_t stream)
{
    stream = resolve(stream);
    if (!stream->captured)
        return cudaSuccess;
    invalidate(stream->captured.get());
    return cudaErrorStreamCaptureUnsupported;
}

bool legacy_stream_forbidden()
{
    bool forbidden = false;
    for (capture *c : captures)
        if (!(c->origin->flags & cudaStreamNonBlocking)) {
            invalidate(c);
            forbidden = true;
        }
    return forbidden;
}

// Whether everything that the members captured comes before the origin's frontier.
static bool all_joined(const capture &c)
{
    std::vector<bool> reached(c.nodes.size());
    for (size_t i : c.origin->frontier)
        reached[i] = true;
    for (size_t i = c.nodes.size(); i-- > 0;)
        if (reached[i])
            for (size_t before : c.nodes[i].after)
                reached[before] = true;
    for (cudaStream_t member : c.members)
        for (size_t i : member->frontier)
            if (!reached[i])
                return false;
    return true;
}

static void end_capture(const std::shared_ptr<capture> &c)
{
    for (cudaStream_t member : c->members) {
        member->captured = nullptr;
        member->frontier.clear();
    }
    captures.erase(c.get());
}

constexpr size_t finished = SIZE_MAX;

// Kernels launched to overlap begin while the node before them runs.
static void begin_dependents(const std::vector<node> &nodes, progress &at, size_t before)
{
    for (size_t i = before + 1; i < nodes.size(); i++) {
        bool overlaps = nodes[i].run.begin && nodes[i].after == std::vector<size_t>{before};
        if (overlaps && nodes[before].run.is_kernel && nodes[i].run.begin(at.nodes[i]))
            begin_dependents(nodes, at, i);
    }
}

// One step of a node that may run. A node's own progress says how far it has got.
static bool run_nodes(const std::vector<node> &nodes, progress &at)
{
    at.nodes.resize(nodes.size());
    std::vector<size_t> ready;
    for (size_t i = 0; i < nodes.size(); i++) {
        bool may_run = at.nodes[i].position != finished;
        for (size_t before : nodes[i].after)
            may_run &= at.nodes[before].position == finished;
        if (may_run)
            ready.push_back(i);
    }
    if (ready.empty())
        return true;
    size_t i = ready[random_below(ready.size())];
    begin_dependents(nodes, at, i);
    if (nodes[i].run(at.nodes[i])) {
        at.nodes[i] = {};
        at.nodes[i].position = finished;
        at.position++;
    }
    return at.position == nodes.size();
}

static cudaError_t instantiate(cudaGraphExec_t *executable, cudaGraph_t graph)
{
    if (!executable || !graphs.count(graph))
        return cudaErrorInvalidValue;
    *executable = new CUgraphExec_st{graph->nodes, nullptr};
    executables.insert(*executable);
    return cudaSuccess;
}

static cudaError_t launch_graph(cudaGraphExec_t executable, cudaStream_t stream)
{
    cudaError_t error = check_stream(stream);
    if (error == cudaSuccess)
        error = check_not_capturing(stream); // child graphs are not emulated
    if (error == cudaSuccess && resolve(stream)->device != current_device())
        error = cudaErrorInvalidResourceHandle;
    if (error != cudaSuccess)
        return error;
    if (!executables.count(executable))
        return cudaErrorInvalidValue;
    operation_ref launched = std::make_shared<operation>();
    nodes_ref nodes = executable->nodes;
    launched->run = [nodes, number = trace_graph_number()](progress &at) {
        traced_graph traced(number);
        return run_nodes(*nodes, at);
    };
    if (executable->last)
        launched->after.push_back(executable->last);
    executable->last = launched;
    append(resolve(stream), launched);
    return cudaSuccess;
}

static cudaError_t end_capture(cudaStream_t stream, cudaGraph_t *graph)
{
    std::shared_ptr<capture> c = stream->captured;
    if (!c)
        return cudaErrorIllegalState;
    if (c->origin != stream)
        return cudaErrorStreamCaptureUnmatched;
    if (c->mode != cudaStreamCaptureModeRelaxed && c->thread != std::this_thread::get_id())
        return cudaErrorStreamCaptureWrongThread;
    bool joined = all_joined(*c);
    end_capture(c);
    if (c->broken)
        return cudaErrorStreamCaptureInvalidated;
    if (!joined)
        return cudaErrorStreamCaptureUnjoined;
    *graph = new CUgraph_st{std::make_shared<const std::vector<node>>(std::move(c->nodes))};
    graphs.insert(*graph);
    return cudaSuccess;
}

} // namespace emulator

using namespace emulator;

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode)
{
    return call(__func__, [&] {
        if (!stream || stream == cudaStreamLegacy)
            return cudaErrorStreamCaptureUnsupported;
        cudaError_t error = check_stream(stream);
        if (error != cudaSuccess)
            return error;
        if (stream->captured)
            return cudaErrorIllegalState;
        auto c = std::make_shared<capture>();
        c->mode = mode;
        c->thread = std::this_thread::get_id();
        c->origin = stream;
        c->members = {stream};
        stream->captured = c;
        stream->frontier.clear();
        captures.insert(c.get());
        return cudaSuccess;
    });
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph)
{
    return call(__func__, [&] {
        *graph = nullptr;
        cudaError_t error = stream ? check_stream(stream) : cudaErrorIllegalState;
        return error == cudaSuccess ? end_capture(resolve(stream), graph) : error;
    });
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus *status)
{
    return call(__func__, [&] {
        cudaError_t error = check_stream(stream);
        if (error != cudaSuccess)
            return error;
        const capture *c = resolve(stream)->captured.get();
        *status = !c          ? cudaStreamCaptureStatusNone
                  : c->broken ? cudaStreamCaptureStatusInvalidated
                              : cudaStreamCaptureStatusActive;
        return cudaSuccess;
    });
}

cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode *mode)
{
    return call(__func__, [&] {
        std::swap(*mode, mode_of_thread);
        return cudaSuccess;
    });
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *executable, cudaGraph_t graph, unsigned long long)
{
    return call(__func__, [&] { return instantiate(executable, graph); });
}

cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *executable, cudaGraph_t graph,
                                          unsigned long long)
{
    return call(__func__, [&] { return instantiate(executable, graph); });
}

cudaError_t cudaGraphUpload(cudaGraphExec_t executable, cudaStream_t stream)
{
    return call(__func__, [&] {
        return executables.count(executable) ? check_stream(stream) : cudaErrorInvalidValue;
    });
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream)
{
    return call(__func__, [&] { return launch_graph(executable, stream); });
}

// Only how many: the nodes themselves cannot be edited here.
cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *nodes, size_t *count)
{
    return call(__func__, [&] {
        if (!graphs.count(graph) || nodes)
            return cudaErrorNotSupported;
        *count = graph->nodes->size();
        return cudaSuccess;
    });
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    return call(__func__, [&] {
        if (!graphs.erase(graph))
            return cudaErrorInvalidValue;
        delete graph;
        return cudaSuccess;
    });
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable)
{
    return call(__func__, [&] {
        if (!executables.erase(executable))
            return cudaErrorInvalidValue;
        delete executable;
        return cudaSuccess;
    });
}
