"""`[tool.fmcheck]`: what is read, what is refused, and what wins."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fmcheck.config import Config, load_config
from fmcheck.errors import DeclarationError
from fmcheck.gate import prepare
from fmcheck.outcome import Expected

Configure = Callable[[str], Path]


class TestFinding:
    def test_no_file_is_all_defaults(self, tmp_path: Path) -> None:
        assert load_config(tmp_path) == Config()

    def test_nearest_table_upwards(self, tmp_path: Path) -> None:
        inner = tmp_path / "packages" / "model"
        inner.mkdir(parents=True)
        (tmp_path / "pyproject.toml").write_text("[tool.fmcheck]\nseed = 3\n")
        # A package without the table shares the root's.
        (inner / "pyproject.toml").write_text("[project]\nname = 'model'\n")
        assert load_config(inner).seed == 3
        (inner / "pyproject.toml").write_text("[tool.fmcheck]\nseed = 4\n")
        assert load_config(inner).seed == 4

    def test_every_key(self, configure: Configure) -> None:
        path = configure(
            """
            subject = "toy:subject"
            select = ["FM2", "FM305"]
            ignore = ["FM206"]
            device = "cpu"
            dtype = "float32"
            seed = 11
            strict = true
            min-checked = 4
            [tool.fmcheck.expected-failures]
            FM305 = "clamped; retrain first"
            FM203 = { reason = "next release", match = "behaves as" }
            [tool.fmcheck.spec]
            grid_clamp = 0
            image_range = [0, 1]
            """
        )
        assert load_config() == Config(
            path=path.resolve(),
            subject="toy:subject",
            select=("FM2", "FM305"),
            ignore=("FM206",),
            device="cpu",
            dtype="float32",
            seed=11,
            strict=True,
            min_checked=4,
            expected={"FM305": Expected("clamped; retrain first"), "FM203": Expected("next release", "behaves as")},
            spec={"grid_clamp": 0.0, "image_range": (0.0, 1.0)},
        )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sed = 1", "[tool.fmcheck] sed: unknown key; did you mean 'seed'?; known: subject, select"),
        ("min_checked = 1", "[tool.fmcheck] min_checked: unknown key; did you mean 'min-checked'?"),
        ("seed = '1'", "[tool.fmcheck] seed: expected an integer; found '1'"),
        ("seed = true", "[tool.fmcheck] seed: expected an integer; found True"),
        ("strict = 1", "[tool.fmcheck] strict: expected true or false; found 1"),
        ("select = 'FM2'", "[tool.fmcheck] select: expected an array of strings"),
        ("select = [2]", "[tool.fmcheck] select: expected an array of strings"),
        ("spec = 3", "[tool.fmcheck] spec: expected a table of FlowSpec fields; found 3"),
        ("[tool.fmcheck.spec]\ngrid_cramp = 0.1", "spec.grid_cramp: unknown key; did you mean 'grid_clamp'?"),
        ("[tool.fmcheck.spec]\ngrid_clamp = 'big'", "spec.grid_clamp: expected float; found 'big'"),
        ("[tool.fmcheck.spec]\nnull_means_unconditional = 'no'", "null_means_unconditional: expected bool; found 'no'"),
        ("[tool.fmcheck.spec]\nlatent_channels = 1.5", "spec.latent_channels: expected int; found 1.5"),
        (
            "[tool.fmcheck.spec]\ngrid = 'karras'",
            "spec.grid: expected Literal['logit_normal', 'uniform', 'shifted', 'declared']",
        ),
        (
            "[tool.fmcheck.expected-failures]\nFM305 = ''",
            "expected-failures.FM305: expected a reason that is not empty",
        ),
        ("[tool.fmcheck.expected-failures]\nFM305 = {match = 'x'}", "expected a reason that is not empty"),
        ("[tool.fmcheck.expected-failures]\nFM305 = true", "expected a reason, or { reason"),
        ("[tool.fmcheck.expected-failures]\nFM305 = {raeson = 'x'}", "unknown key 'raeson'; did you mean 'reason'?"),
        ("seed = ", "cannot be read as TOML"),
    ],
)
def test_refused(configure: Configure, text: str, message: str) -> None:
    path = configure(text)
    with pytest.raises(DeclarationError) as refused:
        load_config()
    assert message in str(refused.value)
    assert str(path.resolve()) in str(refused.value)


class TestApplied:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("[tool.fmcheck.expected-failures]\nFM399 = 'x'", "[tool.fmcheck] expected-failures: no rule 'FM399'"),
            ("select = ['FN2']", "[tool.fmcheck] select: no rule code starts with 'FN2'"),
            ("[tool.fmcheck.spec]\ngrid_clamp = 0.7", "[tool.fmcheck] spec: FlowSpec.grid_clamp: expected a number in"),
        ],
    )
    def test_what_only_the_rules_and_the_spec_know(self, configure: Configure, text: str, message: str) -> None:
        configure(text)
        with pytest.raises(DeclarationError) as refused:
            prepare("toy:subject")
        assert message in str(refused.value)

    def test_file_over_default_and_arguments_over_file(self, configure: Configure) -> None:
        configure("subject = 'toy:subject'\nseed = 5\nstrict = true\nselect = ['FM2']\nmin-checked = 3")
        gate = prepare()
        assert (gate.subject.name, gate.subject.case.seed, gate.strict, gate.min_checked) == ("toy", 5, True, 3)
        gate = prepare("toy:broken", seed=6, strict=False, select=["FM203"], min_checked=0)
        assert (gate.subject.name, gate.subject.case.seed, gate.strict) == ("toy with another scale", 6, False)
        assert (gate.select, gate.min_checked) == (("FM203",), 0)

    def test_spec_lies_over_the_subject_s_own(self, configure: Configure) -> None:
        configure("[tool.fmcheck.spec]\ngrid_clamp = 1e-3")
        spec = prepare("toy:subject").subject.spec
        assert (spec.grid_clamp, spec.grid, spec.latent_channels) == (1e-3, "uniform", 2)

    def test_spec_and_expected_failures_are_the_configured_subject_s(self, configure: Configure) -> None:
        configure(
            "subject = 'toy:broken'\n[tool.fmcheck.spec]\ngrid_clamp = 1e-3\n"
            "[tool.fmcheck.expected-failures]\nFM203 = 'known'"
        )
        assert prepare().expected == {"FM203": Expected("known")}
        other = prepare("toy:subject")
        assert other.expected == {}
        assert other.subject.spec.grid_clamp == 0
        assert "those of toy:broken, so they do not hold for toy:subject" in other.remarks[-1]

    def test_a_function_is_a_subject_too(self, configure: Configure) -> None:
        configure("subject = 'toy:factory'")
        assert prepare().subject.name == "toy from a function"


class TestExpectedFailures:
    def run(self, configure: Configure, fmcheck_command: Callable[..., tuple[int, str, str]], entry: str) -> tuple:
        configure(f"[tool.fmcheck.expected-failures]\n{entry}")
        return fmcheck_command("run", "toy:broken", "--select", "FM203,FM201")

    def test_expected(self, configure: Configure, fmcheck_command: Callable[..., tuple[int, str, str]]) -> None:
        code, out, _ = self.run(configure, fmcheck_command, "FM203 = 'another scale until May'")
        assert code == 0
        assert "another scale until May: FM203" in out
        assert "1 passed, 0 failed, 1 expected failure," in out
        assert "error" not in out.partition("0 errors")[0]

    def test_another_failure_under_the_code(
        self, configure: Configure, fmcheck_command: Callable[..., tuple[int, str, str]]
    ) -> None:
        code, out, _ = self.run(configure, fmcheck_command, "FM203 = { reason = 'x', match = 'not in the message' }")
        assert code == 1
        assert "FM203 wrong-guidance  error" in out

    def test_stale(self, configure: Configure, fmcheck_command: Callable[..., tuple[int, str, str]]) -> None:
        code, out, _ = self.run(configure, fmcheck_command, "FM203 = 'x'\nFM201 = 'long fixed'")
        assert code == 1
        assert "stale expected failure: FM201 wrong-null-half: expected to fail (long fixed) but passed" in out
        assert "FAILED: 1 stale expected failure" in out
