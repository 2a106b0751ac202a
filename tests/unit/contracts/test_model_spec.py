import pytest

from contracts.model_spec import BadSpec, ModelSpec, condition, parse

GOOD = """\
name: digits
task: classification
target: digit
estimator: pipeline:build
gate:
  confidence: 0.9
  conditions:
    - accuracy > 0.90 +/- 0.03
    - accuracy - champion > -0.03 +/- 0.02
monitor: {window: 500, max_loss: 0.05, cooldown: 10m}
"""


def test_the_whole_spec_is_read() -> None:
    spec = parse(GOOD)
    first, second = spec.gate.conditions
    assert (first.metric, first.champion, first.operator, first.number, first.tolerance) == (
        "accuracy", False, ">", 0.90, 0.03,
    )  # fmt: skip
    assert (second.champion, second.number) == (True, -0.03)
    assert spec.monitor.cooldown == 600.0


@pytest.mark.parametrize(
    ("serve", "memory", "cpus"),
    [
        ("{}", 1024**3, 1.0),
        ("{memory: 512MiB, cpus: 0.5}", 512 * 1024**2, 0.5),
        ("{memory: 1.5GB, cpus: 2}", 1_500_000_000, 2.0),
        ("{memory: 300000000}", 300_000_000, 1.0),
    ],
)
def test_what_a_server_may_use_is_read_in_peoples_units(serve: str, memory: int, cpus: float) -> None:
    limits = parse(f"name: a\ntarget: y\nserve: {serve}\n").serve.limits
    assert (limits.memory, limits.cpus) == (memory, cpus)


def test_the_image_and_the_environment_of_a_server_are_read() -> None:
    spec = parse(
        "name: a\ntarget: y\nserve: {system_packages: [libgomp1, 'git=1:2.3~b'], dockerfile: docker/Dockerfile}\n"
        "env: {MOOD: quiet, SIZE: 3}\n"
    )
    assert spec.serve.system_packages == ("libgomp1", "git=1:2.3~b")
    assert spec.serve.dockerfile == "docker/Dockerfile"
    assert spec.env == {"MOOD": "quiet", "SIZE": "3"}
    assert parse("name: a\ntarget: y\nserve: {base_image: 'ghcr.io/acme/base:1'}\n").serve.base_image


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (
            "serve:\n  system_packages:\n    - libgomp1\n    - $(reboot)\n",
            r"line 6: serve.system_packages.1: '\$\(reboot\)'",
        ),
        ("serve: {system_packages: ['a; reboot']}\n", "line 3: serve.system_packages.0: .*names of Debian packages"),
        ("serve: {system_packages: ['-o=x']}\n", "names of Debian packages"),
        ("serve: {base_image: '--x y'}\n", "line 3: serve.base_image: .*write the name of an image"),
        ("serve: {dockerfile: ../Dockerfile}\n", "line 3: serve.dockerfile: .*not inside the project"),
        ("serve: {dockerfile: /etc/Dockerfile}\n", "not inside the project"),
        ("serve: {dockerfile: ''}\n", "not inside the project, or no file"),
        ("serve: {dockerfile: .}\n", "not inside the project, or no file"),
        ('serve: {dockerfile: "a\\0b"}\n', "not inside the project, or no file"),
        ("env: {LD_AUDIT: x}\n", "LD_AUDIT is set by Bentobelt"),
        ("env: {BELT_HOME: x}\n", "BELT_HOME is set by Bentobelt"),
        ("serve: {dockerfile: a, base_image: b}\n", "line 3: serve: base_image and dockerfile exclude each other"),
        ("serve: {packages: [a]}\n", "line 3: unknown key 'serve.packages'"),
        ("env:\n  A: b\n  PATH: x\n", "line 5: env.PATH: PATH is set by Bentobelt or decides how Python starts"),
        ("env: {NATS_URL: x}\n", "a project cannot set it"),
        ("env: {PORT: 80}\n", "a project cannot set it"),
        ("env: {BENTOML_HOME: x}\n", "a project cannot set it"),
        ("env: {PYTHONPATH: x}\n", "a project cannot set it"),
        ("env: {a b: x}\n", "'a b' is not the name of an environment variable"),
        ("env: {A: true}\n", "line 3: env.A: True is not text; put it in quotes"),
        ("env: {A: [1]}\n", "is not text"),
        ('env: {A: "x\\ny"}\n', "line 3: env.A: the value of an environment variable has one line"),
    ],
)
def test_an_image_or_environment_that_cannot_be_is_refused_with_its_line(more: str, says: str) -> None:
    with pytest.raises(BadSpec, match=says):
        parse(f"name: a\ntarget: y\n{more}")


@pytest.mark.parametrize(("task", "metric"), [("classification", "accuracy"), ("regression", "r2")])
def test_default_gate_compares_with_the_champion(task: str, metric: str) -> None:
    spec = parse(f"name: a\ntarget: y\ntask: {task}\n")
    assert [c.text for c in spec.gate.conditions] == [f"{metric} - champion > -0.05"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name: a\ntarget: y\nfoo: 1\n", "line 3: unknown key 'foo'"),
        ("name: a\ntarget: y\nmonitor:\n  window: 500\n  windoww: 1\n", "line 5: unknown key 'monitor.windoww'"),
        ("name: a\n", "'target' is missing"),
        (
            "name: Not Good\ntarget: y\n",
            "line 1: name: 'Not Good' .*lower-case letters, digits and - between them, .*e.g. my-churn",
        ),
        (GOOD.replace("accuracy > 0.90", "acuracy > 0.90"), "line 8: gate condition .* no metric 'acuracy'"),
        (GOOD.replace("accuracy > 0.90", "accuracy is high"), "line 8.*is not a condition"),
        ("name: a\ntarget: y\ntask: regression\ngate:\n  conditions: [accuracy > 0.5]\n", "r2, mae, rmse"),
        (GOOD.replace("10m", "ten minutes"), "line 10.*is not a duration"),
        ("name: a\ntarget: y\nserve: {memory: lots}\n", "line 3: serve.memory: 'lots' is no amount .*512MiB or 2GiB"),
        ("name: a\ntarget: y\nserve: {memory: 8MiB}\n", "line 3: serve.memory: .*greater than or equal to 268435456"),
        ("name: a\ntarget: y\nserve: {cpus: 0}\n", "line 3: serve.cpus: .*greater than or equal to 0.1"),
        ("name: a\ntarget: y\nestimator: rm -rf\n", "line 3: estimator: .*write module:function, e.g. pipeline:build"),
        ("", "empty"),
        ("[1, 2]", "empty"),
        ("a: [", "not YAML"),
        ("[" * 5000, "not YAML"),
        ("name: a\ntarget: 2026-13-45\n", "not YAML: month must be in 1..12"),
        ("a: !!python/object/apply:os.system ['true']", "not YAML"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(text: str, says: str) -> None:
    with pytest.raises(BadSpec, match=says):
        parse(text)


@pytest.mark.parametrize("text", [GOOD, "name: a\ntarget: y\n"])
def test_a_spec_is_read_back_as_it_was_written(text: str) -> None:
    spec = parse(text)
    assert ModelSpec.model_validate(spec.model_dump()) == spec
    assert ModelSpec.model_validate_json(spec.model_dump_json()) == spec
    assert spec.model_dump()["gate"]["conditions"] == tuple(c.text for c in spec.gate.conditions)


@pytest.mark.parametrize("text", ["r2>=0.5", " mae < 3 ", "f1 - champion > -.5", "rmse <= 1e3 +/- 2.5"])
def test_conditions_follow_the_grammar_or_not(text: str) -> None:
    if "-.5" in text:
        with pytest.raises(ValueError, match="is not a condition"):
            condition(text)
    else:
        assert condition(text).text == text.strip()
