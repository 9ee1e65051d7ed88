from harness.plan import make_plan
from harness.report.markdown import to_markdown
from harness.report.training import to_training_notes
from harness.spec import RowSpec, TokenLabelsSpec, VoloSpec
from harness.table import make_results


def _train_otherwise(spec, **changes):
    volo = VoloSpec(patch_size=2, layers=(1, 1), embed_dims=(8, 16), num_heads=(2, 4), use_aux_head=True)
    recipe = spec.recipe.model_copy(
        update={
            "backbones": spec.recipe.backbones.model_copy(update={"volo": volo}),
            "training_of": {"volo": spec.recipe.training.model_copy(update=changes)},
        }
    )
    return make_plan(spec.model_copy(update={"recipe": recipe, "rows": {**spec.rows, "V": RowSpec(backbone="volo")}}))


def test_a_table_tells_which_rows_are_trained_otherwise_and_how(small_spec, records):
    plan = _train_otherwise(small_spec, lr=2e-3, clip_grad=5.0, token_labels=TokenLabelsSpec(grid=7))
    note = (
        "Trained otherwise than all: V; lr 0.002 instead of 0.001, clip_grad 5 instead of off, token_labels.grid 7, "
        "token_labels.weight 0.5, token_labels.mix_token 1."
    )
    assert list(to_training_notes(plan)) == [note]
    assert f"* {note}\n" in to_markdown(make_results(plan, records))


def test_where_all_are_trained_alike_nothing_is_told(small_spec, small_plan):
    assert list(to_training_notes(small_plan)) == []
    assert list(to_training_notes(_train_otherwise(small_spec))) == []
