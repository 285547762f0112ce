"""Make `transforms/data/fineweb2.tsv`: FineWeb-2's thresholds and stop words, a language a line.

    python tests/data/make_fineweb2_table.py FINEWEB2 [transforms/data/fineweb2.tsv]

FINEWEB2 is a clone of https://github.com/huggingface/fineweb-2 (Apache-2.0) at COMMIT; its `configs/*.yml` are read
as they stand. Numbers are written as there, but for the 0 before the point. A stop word with a space in it (three of
37,297) is left out: the words of no tokenizer that splits at spaces hold one.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

COMMIT = "d0defb24f193bb9a5a11b8b14524a03c4858e1b6"
TABLE = Path(__file__).resolve().parents[2] / "transforms" / "data" / "fineweb2.tsv"
FIELDS = ("language_score", "dup_line_frac", "line_punct_thr", "new_line_ratio", "min_avg_word_length",
          "max_avg_word_length", "max_non_alpha_words_ratio")  # fmt: skip
GRAMS = {"top_n_grams": (2, 3, 4), "dup_n_grams": (5, 6, 7, 8, 9, 10)}

#: Labels of lid.176 (Wikipedia's codes) and the label of the config that stands for each. Of a macro-language it is the
#: variety that most of its text is in; "als" is Alemannic there. English has no config.
LID_176 = """
af afr_Latn als gsw_Latn am amh_Ethi an arg_Latn ar arb_Arab arz arz_Arab as asm_Beng ast ast_Latn av ava_Cyrl
az azj_Latn azb azb_Arab ba bak_Cyrl bar bar_Latn bcl bcl_Latn be bel_Cyrl bg bul_Cyrl bh bho_Deva bn ben_Beng
bo bod_Tibt bpy bpy_Beng br bre_Latn bs bos_Latn bxr bxr_Cyrl ca cat_Latn cbk cbk_Latn ce che_Cyrl ceb ceb_Latn
ckb ckb_Arab co cos_Latn cs ces_Latn cv chv_Cyrl cy cym_Latn da dan_Latn de deu_Latn diq diq_Latn dsb dsb_Latn
dty dty_Deva dv div_Thaa el ell_Grek eml eml_Latn eo epo_Latn es spa_Latn et ekk_Latn eu eus_Latn fa fas_Arab
fi fin_Latn fr fra_Latn frr frr_Latn fy fry_Latn ga gle_Latn gd gla_Latn gl glg_Latn gn gug_Latn gom gom_Deva
gu guj_Gujr gv glv_Latn he heb_Hebr hi hin_Deva hif hif_Latn hr hrv_Latn hsb hsb_Latn ht hat_Latn hu hun_Latn
hy hye_Armn ia ina_Latn id ind_Latn ie ile_Latn ilo ilo_Latn io ido_Latn is isl_Latn it ita_Latn ja jpn_Jpan
jbo jbo_Latn jv jav_Latn ka kat_Geor kk kaz_Cyrl km khm_Khmr kn kan_Knda ko kor_Hang krc krc_Cyrl ku kmr_Latn
kv kpv_Cyrl kw cor_Latn ky kir_Cyrl la lat_Latn lb ltz_Latn lez lez_Cyrl li lim_Latn lmo lmo_Latn lo lao_Laoo
lrc lrc_Arab lt lit_Latn lv lvs_Latn mai mai_Deva mg plt_Latn mhr mhr_Cyrl min min_Latn mk mkd_Cyrl ml mal_Mlym
mn khk_Cyrl mr mar_Deva mrj mrj_Cyrl ms zsm_Latn mt mlt_Latn mwl mwl_Latn my mya_Mymr myv myv_Cyrl mzn mzn_Arab
nah nah_Latn nap nap_Latn nds nds_Latn ne npi_Deva new new_Deva nl nld_Latn nn nno_Latn no nob_Latn oc oci_Latn
or ory_Orya os oss_Cyrl pa pan_Guru pam pam_Latn pfl pfl_Latn pl pol_Latn pms pms_Latn pnb pnb_Arab ps pbt_Arab
pt por_Latn qu quy_Latn rm roh_Latn ro ron_Latn ru rus_Cyrl rue rue_Cyrl sa san_Deva sah sah_Cyrl sc srd_Latn
scn scn_Latn sco sco_Latn sd snd_Arab sh srp_Latn si sin_Sinh sk slk_Latn sl slv_Latn so som_Latn sq als_Latn
sr srp_Cyrl su sun_Latn sv swe_Latn sw swh_Latn ta tam_Taml te tel_Telu tg tgk_Cyrl th tha_Thai tk tuk_Latn tl fil_Latn
tr tur_Latn tt tat_Cyrl tyv tyv_Cyrl ug uig_Arab uk ukr_Cyrl ur urd_Arab uz uzn_Latn vec vec_Latn vep vep_Latn
vi vie_Latn vls vls_Latn vo vol_Latn wa wln_Latn war war_Latn wuu wuu_Hani xal xal_Cyrl xmf xmf_Geor yi ydd_Hebr
yo yor_Latn yue yue_Hani zh cmn_Hani
"""


def number(value: float) -> str:
    """Write a number so that it reads back as itself."""
    text = repr(value)
    assert float(text) == value
    return text[1:] if text.startswith("0.") else text


def row(language: str, alias: str, config: dict[str, Any]) -> str:
    """Write one language's line."""
    numbers = [number(config[field]) for field in FIELDS]
    for field, sizes in GRAMS.items():
        assert tuple(size for size, _ in config[field]) == sizes, f"{language}: {field}"
        numbers += [number(threshold) for _, threshold in config[field]]
    words = [word for word in config["stopwords"] if len(word.split()) == 1]
    return "\t".join([language, alias, *numbers, " ".join(words)])


def main(clone: Path, table: Path = TABLE) -> None:
    """Read the configs of one commit; write the table."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", clone, *arguments], check=True, capture_output=True, text=True).stdout

    pairs = LID_176.split()
    aliases = {label: alias for alias, label in zip(pairs[::2], pairs[1::2], strict=True)}
    head = ["language", "lid176", *FIELDS, *(f"{name[:3]}_{size}" for name, sizes in GRAMS.items() for size in sizes)]
    lines = ["\t".join([*head, "stopwords"])]
    for name in sorted(git("ls-tree", "--name-only", COMMIT, "configs/").split()):
        language = Path(name).stem
        lines.append(row(language, aliases.pop(language, ""), yaml.safe_load(git("show", f"{COMMIT}:{name}"))))
    print(f"{len(lines) - 1} languages; labels of lid.176 without a config: {aliases}")
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
