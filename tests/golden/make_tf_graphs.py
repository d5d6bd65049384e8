"""Make tf_graphs.npz.xz: frozen graphs by the original code (openai/glow) under TensorFlow 1.8, and what TensorFlow computes with them.

Run with Python 3.6 and the packages of make_tf_operations.py, beside a checkout of https://github.com/openai/glow (commit 91b2c57):

    python make_tf_graphs.py path/to/glow tf_graphs.npz.xz

The flows are small and random; their steps are the original's, initialised on data as in training, so that images keep their range. The
networks of some couplings are of our making: what an unseen conditional model may hold. Of each flow:

- ``FLOW/eps_i``, ``FLOW/noised``, ``FLOW/objective``: latents, preprocessed pictures with noise, and the log-likelihood of pictures;
- ``FLOW/FORM/graph``: a form of its graph, the bytes of a GraphDef;
- ``walk/...``: pictures that the original demo's own code walks to, by a random table of directions;
- ``FLOW/FORM/image``, ``FLOW/FORM/random``: uint8 images that TensorFlow decodes by that form from the latents, and from those
  that numpy's RandomState(1) draws with deviation 0.7, level after level.
"""

import argparse
import io
import lzma
import os
import sys
import tempfile
import types

import numpy as np
import tensorflow as tf
from tensorflow.python.framework import graph_util
from tensorflow.python.tools import optimize_for_inference_lib, strip_unused_lib
from tensorflow.tools.graph_transforms import TransformGraph

arguments = argparse.ArgumentParser()
arguments.add_argument("glow")
arguments.add_argument("out")
arguments = arguments.parse_args()

horovod = types.ModuleType("horovod.tensorflow")  # the original trains on many machines; we only build its graph
horovod.rank, horovod.size = (lambda: 0), (lambda: 1)
sys.modules["horovod"] = types.ModuleType("horovod")
sys.modules["horovod"].tensorflow = sys.modules["horovod.tensorflow"] = horovod
sys.path.insert(0, arguments.glow)
import model as original  # noqa: E402
import tfops as Z  # noqa: E402

BATCH = 3
condition = {}


def network(first, second=None, last=None):
    """A coupling's network: `first` and `second` make the hidden layers of (h, width), `last` the output of (h, outputs)."""

    def f(name, h, width, n_out=None):
        outputs = n_out or int(h.get_shape()[3])
        with tf.variable_scope(name):
            h = first(h, width)
            h = second(h, width) if second else tf.nn.relu(Z.conv2d("l_2", h, width, filter_size=[1, 1]))
            return last(h, outputs) if last else Z.conv2d_zeros("l_last", h, outputs)

    return f


def beside(h, channels=4):
    """The condition's picture at the size of h."""
    picture, side = condition["picture"], int(h.get_shape()[1])
    while int(picture.get_shape()[1]) > side:
        picture = tf.nn.avg_pool(picture, [1, 2, 2, 1], [1, 2, 2, 1], "VALID")
    return tf.nn.relu(Z.conv2d("seen", picture, channels))


def vector(width):
    return tf.reshape(Z.linear("film", condition["vector"], width, do_actnorm=False), [-1, 1, 1, width])


def film(h, width):
    return tf.nn.relu(Z.conv2d("l_1", h, width) * (1 + vector(width)))


def deeper(h, width):
    return tf.nn.relu(Z.conv2d("l_1b", tf.nn.relu(Z.conv2d("l_1", h, width)), width))


def normal(h, width):
    return tf.nn.relu(Z.conv2d("l_1", h, width, do_weightnorm=True))


NETWORKS = {
    "original": original.f,
    "resnet": original.f_resnet,
    "separable": network(lambda h, width: tf.nn.relu(Z.separable_conv2d("l_1", h, width))),
    "dilated": network(lambda h, width: tf.nn.relu(Z.conv2d("l_1", h, width, skip=2, edge_bias=False))),
    "weight norm": network(normal, lambda h, width: tf.nn.relu(Z.conv2d("l_2", h, width, filter_size=[1, 1], do_actnorm=False))),
    "no border": network(
        lambda h, width: tf.nn.relu(Z.conv2d("l_1", h, width, edge_bias=False)),
        last=lambda h, outputs: Z.conv2d_zeros("l_last", h, outputs, edge_bias=False),
    ),
    "dense context": network(
        lambda h, width: tf.nn.relu(Z.conv2d("l_1", h, width, context1d=condition["vector"])),
        lambda h, width: tf.nn.relu(Z.conv2d("l_2", h, width, filter_size=[1, 1], context1d=condition["vector"])),
    ),
    "film": network(film),
    "scaled after ReLU": network(lambda h, width: tf.nn.relu(Z.conv2d("l_1", h, width)) * (1 + vector(width))),
    "shifted after ReLU": network(lambda h, width: tf.nn.relu(Z.conv2d("l_1", h, width)) + vector(width)),
    "last 1x1": network(
        lambda h, width: tf.nn.relu(Z.conv2d("l_1", h, width)),
        last=lambda h, outputs: Z.conv2d_zeros("l_last", h, outputs, filter_size=[1, 1]),
    ),
    "deeper": network(deeper),
    "picture context": network(
        lambda h, width: tf.nn.relu(Z.conv2d("l_1", tf.concat([h, beside(h)], 3), width)),
        lambda h, width: tf.nn.relu(Z.conv2d("l_2", h, width, filter_size=[1, 1])),
    ),
    "upsampled context": network(
        lambda h, width: tf.nn.relu(
            Z.conv2d("l_1", h, width) + Z.upsample(tf.reduce_mean(beside(h, width), [1, 2], keepdims=True), int(h.get_shape()[1]))
        )
    ),
}

FLOWS = {
    "additive": {},
    "affine": dict(flow_coupling=1, n_bits_x=8),
    "reversed": dict(flow_permutation=0, learntop=False),
    "shuffled": dict(flow_permutation=1, flow_coupling=1, depth=2),
    "one level": dict(n_levels=1, depth=2),
    "by label": dict(ycond=True, n_y=10, named="dec_eps"),
    "eight bits": dict(n_bits_x=8, learntop=False, named="dec_eps"),
    "resnet": dict(network="resnet"),
    "separable": dict(network="separable"),
    "dilated": dict(network="dilated", image_size=16),
    "weight norm": dict(network="weight norm"),
    "no border": dict(network="no border", flow_coupling=1),
    "dense context": dict(network="dense context", context="vector"),
    "film": dict(network="film", context="vector"),
    "scaled after ReLU": dict(network="scaled after ReLU", context="vector"),
    "shifted after ReLU": dict(network="shifted after ReLU", context="vector"),
    "last 1x1": dict(network="last 1x1"),
    "deeper": dict(network="deeper"),
    "picture context": dict(network="picture context", context="picture", image_size=32, n_levels=3),
    "upsampled context": dict(network="upsampled context", context="picture", flow_coupling=1, flow_permutation=1),
}
kept, images = {}, {}  # images: the name of each flow's image


class Flow:
    """The graph of a flow, from pictures to latents and back, in the names of the published demo or of the public code."""

    def __init__(
        self, image_size=8, n_levels=2, depth=1, width=6, network="original", context=None, named="Placeholder", **settings
    ):
        defaults = dict(flow_coupling=0, flow_permutation=2, learntop=True, ycond=False, n_y=1, n_bits_x=5)
        self.hps = types.SimpleNamespace(n_levels=n_levels, depth=depth, width=width, **dict(defaults, **settings))
        self.side, self.bins, self.context = image_size, 2.0**self.hps.n_bits_x, context
        original.f = NETWORKS[network]
        with tf.name_scope("input"):
            self.pictures = tf.placeholder(tf.uint8, [None, image_size, image_size, 3], name="image")
            self.label = tf.placeholder(tf.int32, [None], name="label")
            self.small = tf.placeholder(tf.uint8, [None, image_size // 2, image_size // 2, 3], name="downsampled_image")
        self.noise = tf.placeholder(tf.float32, [None, image_size, image_size, 3], name="noise")
        self.encode, self.decode = original.codec(self.hps)
        self.noised = self.scaled(self.pictures) + self.noise
        self.eps, self.objective = self.encoded()
        shapes = [[None] + each.get_shape().as_list()[1:] for each in self.eps]
        names = ["dec_eps_%d" % i if named == "dec_eps" else None for i in range(len(shapes))]
        self.latents = [tf.placeholder(tf.float32, shape, name=name) for shape, name in zip(shapes, names)]
        self.image = self.decoded()

    def scaled(self, pictures):
        x = tf.cast(pictures, tf.float32)
        x = tf.floor(x / 2 ** (8 - self.hps.n_bits_x)) if self.hps.n_bits_x < 8 else x
        return x / self.bins - 0.5

    def prior(self):
        if self.context == "picture":
            condition["picture"] = Z.conv2d("condition", self.scaled(self.small), 3, do_actnorm=False)
        if self.context == "vector":
            condition["vector"] = Z.embedding("condition", self.label, 10, 4)
        return original.prior("prior", tf.cast(tf.one_hot(self.label, self.hps.n_y, 1, 0), tf.float32), self.hps)

    def encoded(self):
        with tf.variable_scope("model", reuse=tf.AUTO_REUSE):
            pixels = self.side * self.side * 3
            self.hps.top_shape = [self.side >> self.hps.n_levels] * 2 + [6 << self.hps.n_levels]
            log_prob, _, normal = self.prior()
            objective = tf.zeros_like(self.noised)[:, 0, 0, 0] - np.log(self.bins) * pixels
            z, objective, eps = self.encode(Z.squeeze2d(self.noised, 2), objective)
            return eps + [normal(z)], objective + log_prob(z)

    def decoded(self):
        with tf.variable_scope("model", reuse=True):
            _, sample, _ = self.prior()
            x = Z.unsqueeze2d(self.decode(sample(eps=self.latents[-1]), eps=self.latents[:-1]), 2)
            levels = tf.floor((x + 0.5) * self.bins) * (256.0 / self.bins)
            return tf.cast(tf.clip_by_value(levels, 0, 255), tf.uint8)

    def feeds(self, random, count, label=0):
        return {
            self.pictures: random.randint(0, 256, (count, self.side, self.side, 3)),
            self.noise: random.uniform(0, 1 / self.bins, (count, self.side, self.side, 3)),
            self.label: np.zeros(count) + label,
            self.small: np.full((count, self.side // 2, self.side // 2, 3), 128),
        }


def forms(frozen, inputs, output):
    """What people's tools make of a graph."""
    types_of = [each.dtype.as_datatype_enum for each in inputs]
    names = [each.op.name for each in inputs]
    yield "plain", frozen
    yield "optimized for inference", optimize_for_inference_lib.optimize_for_inference(frozen, names, [output], types_of)
    yield "stripped", strip_unused_lib.strip_unused(frozen, names, [output], types_of)
    fold = "fold_constants(ignore_errors=true)"
    for name, transforms in (
        ("folded", [fold]),
        ("8 bits", [fold, "quantize_weights(minimum_size=32)"]),
        ("many", ["remove_nodes(op=Identity)", fold, "merge_duplicate_nodes", "sort_by_execution_order"]),
        ("old concat", ["backport_concatv2"]),
    ):
        yield name, TransformGraph(frozen, names, [output], transforms)


def make(name, settings):
    tf.reset_default_graph()
    tf.set_random_seed(0)
    np.random.seed(0)
    random = np.random.RandomState(0)
    flow = Flow(**settings)
    with tf.Session() as session:
        with Z.arg_scope([Z.get_variable_ddi, Z.actnorm], init=True):
            initial = flow.encoded()
        session.run(tf.global_variables_initializer())
        session.run(initial, flow.feeds(random, 16, label=np.arange(16) % 10))  # some layers are normalised over labels
        for variable in tf.global_variables():  # nothing stays zero
            value = session.run(variable)
            if value.dtype == np.float32 and "invconv" not in variable.name:
                variable.load(value + random.normal(scale=0.03, size=value.shape).astype(np.float32), session)
        feeds = flow.feeds(random, BATCH)
        eps, noised, objective = session.run([flow.eps, flow.noised, flow.objective], feeds)
        frozen = graph_util.convert_variables_to_constants(session, session.graph.as_graph_def(), [flow.image.op.name])
    kept.update({"%s/eps_%d" % (name, i): each for i, each in enumerate(eps)})
    kept.update({name + "/noised": noised, name + "/objective": objective})
    other = np.random.RandomState(1)
    random_eps = [other.normal(scale=0.7, size=each.shape).astype(np.float32) for each in eps]
    images[name] = flow.image.op.name
    there = {node.name for node in frozen.node}
    inputs = [each for each in flow.latents + [flow.label, flow.small] if each.op.name in there]
    for form, graph in forms(frozen, inputs, flow.image.op.name):
        kept["%s/%s/graph" % (name, form)] = np.frombuffer(graph.SerializeToString(), np.uint8)
        with tf.Graph().as_default(), tf.Session() as session:
            tf.import_graph_def(graph, name="")
            for key, values in (("image", eps), ("random", random_eps)):
                fed = dict(zip(flow.latents, values))
                fed.update({each: feeds[each] for each in (flow.label, flow.small)})
                fed = {each.name: value for each, value in fed.items() if each.op.name in {node.name for node in graph.node}}
                kept["%s/%s/%s" % (name, form, key)] = session.run(flow.image.op.name + ":0", fed)
    print(name, sum(array.nbytes for key, array in kept.items() if key.startswith(name + "/")))


def walk_as_the_demo(name, attributes):
    """What glow/demo/model.py makes of a graph: its own code, for a smaller model.

    Keeps the table, the person, the strengths and the pictures as ``walk/...``.
    """
    latents = [kept["%s/eps_%d" % (name, i)] for i in range(FLOWS[name]["n_levels"])]
    shapes = [each.shape[1:] for each in latents]
    size = sum(int(np.prod(shape)) for shape in shapes)
    random = np.random.RandomState(2)
    table = random.normal(scale=0.3, size=(40, size)).astype(np.float32)
    folder = tempfile.mkdtemp()
    np.save(os.path.join(folder, "z_manipulate.npy"), table)
    with open(os.path.join(folder, "graph_unoptimized.pb"), "wb") as file:
        file.write(kept[name + "/plain/graph"].tobytes())
    with open(os.path.join(arguments.glow, "demo", "model.py")) as file:
        source = file.read().split("# warm start")[0]
    for ours, theirs in (
        ("optimized = False", "optimized = True"),
        (images[name], "model_1/Cast_1"),
        ("n_eps = %d" % len(shapes), "n_eps = 6"),
        ("bs, %d, %d, 3" % shapes[0][:2], "bs, 128, 128, 3"),
        ("enc_x = None", "enc_x = get(inputs['enc_x'])"),
        ("enc_eps = []", "enc_eps = [get(outputs['enc_eps_' + str(i)]) for i in range(n_eps)]"),
    ):
        assert source.count(theirs) == 1, theirs
        source = source.replace(theirs, ours)
    start = source.index("eps_shapes = [(128")
    end = source.index("eps_size = 256 * 256 * 3")
    source = source[:start] + "eps_shapes = %r\n" % (shapes,) + source[end:].replace("256 * 256 * 3", str(size), 1)
    for module in ("tqdm", "PIL"):
        sys.modules[module] = types.ModuleType(module)
    sys.modules["tqdm"].tqdm = sys.modules["PIL"].Image = None
    there = os.getcwd()
    os.chdir(folder)
    with tf.Graph().as_default():
        demo = {}
        exec(compile(source, "demo", "exec"), demo)
        tags = [demo["_TAGS"].index(each) for each in attributes]
        person = random.normal(scale=0.7, size=(1, size)).astype(np.float32)
        for step, strengths in enumerate(([0.66, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, 0], [0, 0, 0, 1], [-0.5, 0.2, 0.4, -1])):
            kept["walk/strengths_%d" % step] = np.array(strengths, np.float32)
            kept["walk/picture_%d" % step] = demo["manipulate_all"](person, tags, strengths)[0][0]
    os.chdir(there)
    kept.update({"walk/table": table, "walk/person": person, "walk/attributes": np.array(attributes)})


for each in FLOWS:
    make(each, FLOWS[each])
walk_as_the_demo("picture context", ["Smiling", "Young", "Narrow_Eyes", "No_Beard"])
archive = io.BytesIO()
np.savez(archive, **kept)
with open(arguments.out, "wb") as file:
    file.write(lzma.compress(archive.getvalue()))  # the forms of a graph share its weights
