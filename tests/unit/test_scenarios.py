"""The scenario table: its jobs are planned or refused in words, and its page says what was found."""

import json
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest

from scenarios import measure, page, rows
from scenarios.__main__ import PAGE, RESULTS
from scenarios.measure import Admitted, Folders, Outcome, admit
from scenarios.table import CELLS, COLUMNS, EVERY, SCENARIOS, TECHNIQUES, Cell, manifest
from strop.cli.manifests import load
from strop_trainer.documents import ProofDocument
from strop_trainer.plan import LABEL_TASKS, METRICS, PROMPT_METHODS, DataFile, DatasetPlan, ProofPlan
from strop_trainer.sources import RowFile
from strop_trainer.tasks import task_named

TUNE = "T: The {} Miller -- Jig\nR: jig\nM: 6/8\nL: 1/8\nK: D\nA2B cde|\nfed cBA|\nd3 d3|"


def write_rows(root: Path) -> Folders:
    folders = Folders(root, root / "models", root / "results")
    folders.rows.mkdir(parents=True)
    for scenario in EVERY:
        for name in (scenario.file, scenario.held_out):
            (folders.rows / name).write_text("{}\n")
    return folders


@pytest.fixture(scope="module")
def admitted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Admitted | Outcome]:
    folders = write_rows(tmp_path_factory.mktemp("scenarios"))
    return {cell.name: admit(cell, folders) for cell in CELLS}


def cell_named(name: str) -> Cell:
    return next(cell for cell in CELLS if cell.name == name)


def test_every_column_of_the_table_has_a_technique_and_every_scenario_runs_with_it() -> None:
    assert {technique.column for technique in TECHNIQUES} - {""} == set(COLUMNS)
    for scenario in SCENARIOS:
        found = {cell.technique.column for cell in CELLS if cell.scenario == scenario}
        assert found >= set(COLUMNS)


@pytest.mark.parametrize("cell", [cell for cell in CELLS if not cell.technique.strategy], ids=lambda cell: cell.name)
def test_a_cell_of_one_process_is_planned_unless_its_head_refuses_the_method(
    cell: Cell, admitted: dict[str, Admitted | Outcome]
) -> None:
    found = admitted[cell.name]
    if cell.scenario.task in LABEL_TASKS and cell.technique.method in PROMPT_METHODS:
        assert isinstance(found, Outcome)
        assert found.status == "refused"
        assert found.reason.startswith("spec.method.type: ")
        assert "are for models that answer in words" in found.reason
    else:
        assert isinstance(found, Admitted)
        assert len(found.key) == 12


def test_a_refusal_is_a_sentence_that_names_the_field(admitted: dict[str, Admitted | Outcome]) -> None:
    for refusal in admitted.values():
        if isinstance(refusal, Outcome):
            assert refusal.reason.startswith("spec.")
            assert "/" not in refusal.reason.partition(":")[0]


def test_other_rows_make_another_key(tmp_path: Path) -> None:
    folders, cell = write_rows(tmp_path), cell_named("translation-lora")
    before = admit(cell, folders)
    assert isinstance(before, Admitted)
    assert admit(cell, folders) == before
    (folders.rows / cell.scenario.held_out).write_text("{}\n{}\n")
    after = admit(cell, folders)
    assert isinstance(after, Admitted)
    assert (after.key != before.key, after.plan) == (True, before.plan)


def test_a_result_is_of_its_trainer_and_its_plan_and_not_of_how_the_trainer_is_described(tmp_path: Path) -> None:
    folders, cell = write_rows(tmp_path), cell_named("translation-lora")
    now = admit(cell, folders)
    assert isinstance(now, Admitted)
    code = measure.code_version(cell.scenario.model)
    result = replace(measured(1, 1, 1), code=code, plan=now.plan)
    here = {cell.name: now}
    assert measure.older({cell.name: result}, here) == set()
    assert measure.older({cell.name: replace(result, code="other")}, here) == {cell.name}
    assert measure.older({cell.name: replace(result, plan="other")}, here) == {cell.name}


def test_comments_and_docstrings_are_no_statements() -> None:
    told = '"""Why."""\n\n# so\nA = "# not one"  # one\n"""Of A."""\n\n\ndef f():\n    """Do."""\n    return A\n'
    assert measure.statements(told) == 'A = "# not one"\ndef f():\n    return A'


def test_a_cell_that_was_interrupted_begins_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders, cell = write_rows(tmp_path), cell_named("translation-zero")
    left = folders.work(cell, "key") / "run" / "checkpoints"
    left.mkdir(parents=True)

    def start(command: list[str], **_options: object) -> None:
        assert not left.exists()
        raise InterruptedError(command[2])

    monkeypatch.setattr(measure.subprocess, "Popen", start)
    with pytest.raises(InterruptedError, match=r"strop\.cli"):
        measure.run(cell, folders, Admitted("key", "plan"), {0}, Event())


@pytest.mark.parametrize("scenario", EVERY, ids=lambda scenario: scenario.name)
def test_a_scenario_shows_a_metric_of_its_task(scenario: object) -> None:
    assert isinstance(scenario, type(SCENARIOS[0]))
    assert scenario.metric in METRICS[scenario.task].names  # type: ignore[index]


def test_a_manifest_is_one_job_under_the_cells_name(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(manifest(cell_named("chat-p-tuning")))
    (job,) = load([str(file)]).jobs
    assert job.name == "chat-p-tuning"
    assert job.spec.output is None


@pytest.mark.parametrize(
    ("scenario", "make"),
    [
        ("domain", rows.api_reference),
        ("classification", rows.topics),
        ("classification-in-words", rows.topics_in_words),
        ("translation", rows.translation),
        ("question-answering", lambda: rows.questions_on([TUNE.format(number) for number in range(40)])),
        ("chat", rows.talk),
        ("summarization", rows.docstrings),
        ("preference", rows.wordings),
    ],
)
def test_the_rows_are_read_by_their_task(scenario: str, make: object, tmp_path: Path) -> None:
    found = next(each for each in EVERY if each.name == scenario)
    assert callable(make)
    made = make()
    assert made == make()
    path = tmp_path / found.file
    rows.write(path, made)
    plan = DatasetPlan(train=[DataFile(source="pvc://rows/x")])
    statistics = task_named(found.task).read([RowFile(path.name, path)], [], plan, 42).statistics  # type: ignore[arg-type]
    assert statistics.train_rows >= 30
    assert statistics.leaked == 0


def test_a_question_is_answered_by_the_text() -> None:
    for row in rows.questions_on([TUNE.format(number) for number in range(40)]):
        assert row["answer"]
        assert f":{row['answer']}\n" in row["context"].replace(": ", ":")
        assert len(row["context"].splitlines()) == 7
    (row,) = rows.questions_on(["T:First, The\nT:Second\nK:D\nA2B2|"])
    assert (row["question"], row["answer"]) == ("What is the title of this tune?", "First, The")
    assert rows.questions_on(["K:D\nA2B2|"]) == []


def test_names_begin_with_b() -> None:
    assert rows.repaired(["I-LOC", "I-LOC", "O", "B-DAT", "I-LOC", "I-LOC"]) == [
        "B-LOC",
        "I-LOC",
        "O",
        "B-DAT",
        "B-LOC",
        "I-LOC",
    ]


def test_sentences_are_read_without_words_of_white_space_and_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "corpus").mkdir()
    sentence = "東京\tx\tB-LOC\n\u3000\tx\tO\nで\tx\tO\n"
    (tmp_path / "corpus" / "iob_sents.txt").write_text(f"{sentence}\n{sentence}\n")
    monkeypatch.setattr(rows, "package", lambda _: tmp_path)
    assert rows.names() == [{"tokens": ["東京", "で"], "tags": ["B-LOC", "O"]}]


def test_a_tune_keeps_its_notes_and_no_address() -> None:
    text = '% a remark\nX:1\nT:Jig\nZ:by me, me@example.org\nM:6/8\nK:D\n"Am"ABc|d3:|\n\nX:2\nT:Other\n'
    assert rows.plain_tune(text) == "T:Jig\nM:6/8\nK:D\nABc|d3:|"


PROVEN: dict[str, object] = {
    **dict.fromkeys(
        ("token_agreement", "greedy_agreement", "perplexity_pytorch", "perplexity_onnx", "perplexity_ratio")
    ),
    **dict.fromkeys(("exact_match_pytorch", "exact_match_onnx", "token_accuracy_pytorch", "token_accuracy_onnx")),
    **{"artifact": "onnx", "precision": "fp32", "passed": True, "reasons": [], "finite": True, "answers": []},
    **{"rows": 2, "positions": 9, "answer_tokens": 9, "max_logit_difference": 2e-4},
}


def measured(seconds: float, peak: float, trained: int, **more: object) -> Outcome:
    return Outcome(
        "measured",
        code="now",
        train_cpu_seconds=seconds,
        train_peak_bytes=int(peak * 1e9),
        trainable_parameters=trained,
        parameters=1000,
        base={"chrf": 10.0, "eval_loss": 3.0},
        tuned={"chrf": 20.5, "eval_loss": 1.5},
        proofs=["fp32 within 1e-05"],
        machine="a machine",
        day="2026-01-01",
        **more,  # type: ignore[arg-type]
    )


def test_the_page_holds_each_technique_against_full_and_against_what_was_published() -> None:
    results = {}
    for scenario, factor in (("translation", 1), ("chat", 2), ("creative", 1)):
        results[f"{scenario}-full"] = measured(100, 4.0, 1000)
        results[f"{scenario}-lora"] = measured(60 * factor, 2.0, 10)
    text = page.page(results, ())
    lines = {line for line in text.splitlines() if line.startswith("| lora |")}
    assert "| lora | 0.60 x | 0.60 x to 1.20 x | 3 | Yes | Yes | Yes | neither |" in lines
    assert "| lora | 0.50 x | 0.50 x to 0.50 x | 3 | Yes | No | Yes | O |" in lines
    assert "| lora | 1.00% | 1.00% to 1.00% | 3 | Yes | No | Yes | O |" in lines
    assert "10 → 20.5" in text
    assert "| qlora | too few |  | 0 |" in text


def test_what_makes_no_difference_saves_nothing_and_two_processes_have_a_yardstick_of_their_own() -> None:
    results = {}
    for scenario in ("translation", "domain", "creative"):
        results[f"{scenario}-full"] = measured(100, 4.0, 1000, train_rows=96, held_out_rows=12)
        results[f"{scenario}-dora"] = measured(96, 3.9, 10)
        results[f"{scenario}-ddp"] = measured(160, 4.0, 1000, ranks=2)
        results[f"{scenario}-zero"] = measured(200, 3.0, 1000, ranks=2)
    text = page.page(results, ())
    assert "| dora | 0.96 x | 0.96 x to 0.96 x | 3 | no difference | No | Yes | N |" in text
    assert "| zero | 2.00 x | 2.00 x to 2.00 x | 3 | No | Yes | Yes | O and N |" in text
    assert "| ZeRO-3: two processes | 3.00 | 0.75 x | 0.75 x | 200 | 1.25 x |" in text
    assert "96 rows to train on, 12 held out; 0 steps, 0 tokens; chrf of 12 answers." in text


def test_what_was_trained_on_four_bits_is_shown_merged_as_well() -> None:
    found = measured(1, 1, 1)
    found.tuned.update({"eval_loss_merged": 1.75, "chrf_merged": 19.5})
    exact = measured(1, 1, 1)
    exact.tuned["eval_loss_merged"] = 1.501
    text = page.page({"translation-qlora": found, "translation-lora": exact, "chat-qlora": measured(1, 1, 1)}, ())
    assert "| qlora | 10 → 20.5, merged 19.5 | 3 → 1.5, merged 1.75 |" in text
    assert "| lora | 10 → 20.5 | 3 → 1.5 |" in text
    words = next(each.words for each in SCENARIOS if each.name == "translation")
    (row,) = [line for line in text.splitlines() if line.startswith(f"| {words} |")]
    assert "| 10 → 20.5, merged 19.5 |" in row
    assert "is another base" in text
    assert "what ONNX users get" in text


def test_what_two_trainers_measured_is_not_compared() -> None:
    names = ("translation", "chat", "creative")
    results = {f"{name}-full": measured(100, 4.0, 1000) for name in names}
    results |= {f"{name}-lora": replace(measured(60, 2.0, 10), code="before") for name in names}
    results["chat-zero"] = replace(measured(200, 2.0, 1000, ranks=2), code="before")
    text = page.page(results, ())
    assert "| lora | too few |  | 0 |" in text
    assert "| human-like answers of a chatbot | ZeRO-3: two processes | 2.00 |  |  | 200 |  |" in text


def test_memory_that_ranks_share_is_held_to_ranks_that_share_nothing() -> None:
    results = {}
    for name in ("domain", "translation", "chat"):
        results[f"{name}-full"] = measured(100, 4.0, 1000)
        results[f"{name}-ddp"] = measured(150, 5.0, 1000, ranks=2)
        results[f"{name}-deepspeed"] = measured(200, 4.0, 1000, ranks=2)
        results[f"{name}-zero"] = measured(200, 4.9, 1000, ranks=2)
    _, parallel = page.page(results, ()).split("### Memory-efficient data parallelism")
    assert "| deepspeed | 0.80 x | 0.80 x to 0.80 x | 3 | Yes | Yes | Yes | neither |" in parallel
    assert "| zero | 0.98 x | 0.98 x to 0.98 x | 3 | no difference | Yes | Yes | O and N |" in parallel


def test_the_page_tells_where_tuning_did_not_help() -> None:
    worse = measured(1, 1, 1)
    worse.tuned["chrf"] = 9.0
    text = page.page({"translation-lora": measured(1, 1, 1), "translation-ia3": worse}, ())
    assert "no better than its base: machine translation by ia3 (10 → 9)." in text
    assert "none came out worse" in page.page({"translation-lora": measured(1, 1, 1)}, ())


def test_answers_that_an_encoder_marks_are_of_all_rows() -> None:
    text = page.page({"extractive-lora": measured(1, 1, 1, held_out_rows=64, train_rows=9, steps=3)}, ())
    assert "9 rows to train on, 64 held out; 3 steps, 0 tokens.\n" in text


def test_a_proof_tells_a_metric_of_both_sides() -> None:
    words = PROVEN | {"token_accuracy_onnx": 0.51, "token_accuracy_pytorch": 0.516}
    labels = PROVEN | {"metrics_onnx": {"accuracy": 0.7, "f1": 0.64}, "metrics_pytorch": {"accuracy": 0.7, "f1": 0.65}}
    document = ProofDocument.model_validate({"limits": ProofPlan(), "results": [words, labels]})
    assert measure.proofs_of(document) == [
        "fp32 within 2e-04 (token accuracy 0.51 / 0.516)",
        "fp32 within 2e-04 (f1 0.64 / 0.65)",
    ]


def test_the_page_says_nothing_of_what_one_scenario_may_have_by_chance() -> None:
    text = page.page({"chat-full": measured(100, 4.0, 1000), "chat-lora": measured(60, 2.0, 10)}, ())
    assert [line for line in text.splitlines() if line.startswith("| lora | too few |  | 1 |  |")]


def test_the_cost_is_not_taken_of_results_that_have_none() -> None:
    results = {
        f"{name}-{method}": measured(0, 1, 1) for name in ("chat", "creative", "domain") for method in ("full", "lora")
    }
    assert "| lora | too few |  | 0 |" in page.page(results, ())


def test_the_page_tells_refusals_failures_and_old_code_apart() -> None:
    results = {
        "ner-ia3": Outcome("refused", "spec.method.type: not this one"),
        "ner-lora": Outcome("failed", "BadData in check: no rows (exit 65)"),
        "ner-full": measured(1, 1, 1, ranks=2),
    }
    text = page.page(results, {"ner-full"})
    assert "- ner-ia3: _spec.method.type: not this one_" in text
    assert "- `ner-lora` failed: BadData in check: no rows (exit 65)" in text
    assert "| full ° |" in text
    assert "1 were measured with an earlier version" in text


def test_without_results_the_page_says_so() -> None:
    text = page.page({}, ())
    assert "No cell has been run yet" in text
    assert json.dumps(text).count("not run") >= len(CELLS)


def test_the_page_is_of_the_results_and_of_the_code_that_are_here(
    admitted: dict[str, Admitted | Outcome],
) -> None:
    folders, results, jobs = Folders(PAGE, PAGE, RESULTS), {}, {}
    for cell in CELLS:
        found = admitted[cell.name]
        if isinstance(found, Outcome):
            results[cell.name] = found
            continue
        jobs[cell.name] = found
        if outcome := measure.load(folders, cell):
            results[cell.name] = outcome
    told = page.page(results, measure.older(results, jobs))
    assert PAGE.read_text(encoding="utf-8") == told, "run python -m scenarios --write"


def test_every_result_is_of_a_cell() -> None:
    assert {path.stem for path in RESULTS.glob("*.json")} <= {cell.name for cell in CELLS}
