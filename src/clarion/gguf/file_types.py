"""The types that a file can say it was written by: the recipes that people know by name, as Q4_K_M.

`clarion.quantize.recipes` has what each recipe does.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Recipe:
    name: str
    file_type: int  # general.file_type
    format: str  # of every tensor for which the table has nothing else


# name, general.file_type, format
_RECIPES = """
F32 0 F32           F16 1 F16           BF16 32 BF16        Q8_0 7 Q8_0         MXFP4_MOE 38 MXFP4
Q4_0 2 Q4_0         Q4_1 3 Q4_1         Q5_0 8 Q5_0         Q5_1 9 Q5_1         NVFP4 39 NVFP4
Q2_K 10 Q2_K        Q2_K_S 21 Q2_K      Q3_K_S 11 Q3_K      Q3_K_M 12 Q3_K      Q3_K_L 13 Q3_K
Q4_K_S 14 Q4_K      Q4_K_M 15 Q4_K      Q5_K_S 16 Q5_K      Q5_K_M 17 Q5_K      Q6_K 18 Q6_K
IQ1_S 24 IQ1_S      IQ1_M 31 IQ1_M      IQ2_XXS 19 IQ2_XXS  IQ2_XS 20 IQ2_XS    IQ2_S 28 IQ2_XS
IQ2_M 29 IQ2_S      IQ3_XXS 23 IQ3_XXS  IQ3_XS 22 IQ3_S     IQ3_S 26 IQ3_S      IQ3_M 27 IQ3_S
IQ4_NL 25 IQ4_NL    IQ4_XS 30 IQ4_XS    TQ1_0 36 TQ1_0      TQ2_0 37 TQ2_0      Q1_0 40 Q1_0
Q2_0 41 Q2_0        MXFP4 38 MXFP4
"""
_WORDS = _RECIPES.split()
RECIPES = {
    name: Recipe(name, int(file_type), format)
    for name, file_type, format in zip(_WORDS[::3], _WORDS[1::3], _WORDS[2::3], strict=True)
}
ALIASES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}
