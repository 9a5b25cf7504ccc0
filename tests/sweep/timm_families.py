"""Timm: a small member of each module of its registry."""

from functools import partial
from typing import Any

import timm
import torch
from families import Builder, Built, noise
from timm.models import _registry

MEMBERS: dict[str, tuple[str, dict[str, Any]]] = {
    "beit": ("beit_base_patch16_224", {"depth": 4, "embed_dim": 192, "num_heads": 3}),
    "byoanet": ("sebotnet33ts_256", {}),
    "byobnet": ("mobileone_s1", {}),
    "cait": ("cait_xxs24_224", {"depth": 4}),
    "coat": ("coat_lite_tiny", {}),
    "convit": ("convit_tiny", {}),
    "convmixer": ("convmixer_768_32", {}),
    "convnext": ("convnext_atto", {}),
    "cpubone": ("cpubone_nano", {}),
    "crossvit": ("crossvit_tiny_240", {}),
    "csatv2": ("csatv2", {}),
    "cspnet": ("cs3darknet_focus_s", {}),
    "cspnext": ("cspnext_tiny", {}),
    "davit": ("davit_tiny", {"embed_dims": (48, 96, 192, 384)}),
    "deepseek_vit": ("deepseek_vit_412m", {"depth": 4, "embed_dim": 256, "num_heads": 4}),
    "deit": ("deit_tiny_distilled_patch16_224", {}),
    "densenet": ("densenet121", {}),
    "dla": ("dla46x_c", {}),
    "dpn": ("dpn48b", {}),
    "edgenext": ("edgenext_xx_small", {}),
    "efficientformer": ("efficientformer_l1", {}),
    "efficientformer_v2": ("efficientformerv2_s0", {}),
    "efficientnet": ("efficientnet_b0", {}),
    "efficientvim": ("efficientvim_m1", {}),
    "efficientvit_mit": ("efficientvit_b0", {}),
    "efficientvit_msra": ("efficientvit_m0", {}),
    "eva": ("eva02_tiny_patch14_224", {}),
    "fasternet": ("fasternet_t0", {}),
    "fastvit": ("fastvit_t8", {}),
    "focalnet": ("focalnet_tiny_srf", {}),
    "gcvit": ("gcvit_xxtiny", {}),
    "gemma4_vit": ("gemma4_vit_167m", {"depth": 4, "embed_dim": 192, "num_heads": 3}),
    "ghostnet": ("ghostnet_050", {}),
    "hardcorenas": ("hardcorenas_b", {}),
    "hgnet": ("hgnetv2_b0", {}),
    "hiera": ("hiera_tiny_224", {"embed_dim": 48}),
    "hieradet_sam2": ("sam2_hiera_tiny", {"embed_dim": 48}),
    "hrnet": ("hrnet_w18_small", {}),
    "iformer": ("iformer_t", {}),
    "inception_next": ("inception_next_atto", {}),
    "inception_resnet_v2": ("inception_resnet_v2", {}),
    "inception_v3": ("inception_v3", {}),
    "inception_v4": ("inception_v4", {}),
    "lcnetv2": ("lcnetv2_small", {}),
    "levit": ("levit_128s", {}),
    "lowformer": ("lowformer_b0", {}),
    "mambaout": ("mambaout_femto", {}),
    "maxxvit": ("coatnet_nano_rw_224", {}),
    "metaformer": ("poolformerv2_s12", {}),
    "mlp_mixer": ("gmlp_ti16_224", {}),
    "mobilenetv3": ("mobilenetv3_small_050", {}),
    "mobilenetv5": ("mobilenetv5_base", {}),
    "mobilevit": ("mobilevit_xxs", {}),
    "mvitv2": ("mvitv2_tiny", {}),
    "naflexvit": ("naflexvit_base_patch16_gap", {"depth": 4, "embed_dim": 192, "num_heads": 3}),
    "nasnet": ("nasnetalarge", {}),
    "nest": ("jx_nest_tiny", {}),
    "nextvit": ("nextvit_small", {}),
    "nfnet": ("dm_nfnet_f0", {}),
    "pit": ("pit_ti_224", {}),
    "pnasnet": ("pnasnet5large", {}),
    "pvt_v2": ("pvt_v2_b0", {}),
    "qwen3_vit": ("qwen3_vit_88m", {"depth": 4, "embed_dim": 192, "num_heads": 3}),
    "rdnet": ("rdnet_tiny", {}),
    "regnet": ("regnety_002", {}),
    "repghost": ("repghostnet_050", {}),
    "repvit": ("repvit_m1", {}),
    "res2net": ("res2next50", {}),
    "resnest": ("resnest14d", {}),
    "resnet": ("resnet18", {}),
    "resnetv2": ("resnetv2_18", {}),
    "rexnet": ("rexnet_100", {}),
    "selecsls": ("selecsls42", {}),
    "senet": ("legacy_seresnet18", {}),
    "sequencer": ("sequencer2d_s", {}),
    "shvit": ("shvit_s1", {}),
    "sknet": ("skresnet18", {}),
    "starnet": ("starnet_s050", {}),
    "swiftformer": ("swiftformer_xs", {}),
    "swin_transformer": ("swin_tiny_patch4_window7_224", {"embed_dim": 48}),
    "swin_transformer_v2": ("swinv2_tiny_window8_256", {}),
    "swin_transformer_v2_cr": ("swinv2_cr_tiny_ns_224", {}),
    "tiny_vit": ("tiny_vit_5m_224", {}),
    "tnt": ("tnt_s_patch16_224", {}),
    "tresnet": ("tresnet_m", {}),
    "twins": ("twins_svt_small", {}),
    "vgg": ("vgg11", {}),
    "visformer": ("visformer_tiny", {}),
    "vision_transformer": ("vit_tiny_patch16_224", {}),
    "vision_transformer_hybrid": ("vit_tiny_r_s16_p8_224", {}),
    "vision_transformer_relpos": ("vit_relpos_small_patch16_224", {"depth": 4, "embed_dim": 192, "num_heads": 3}),
    "vision_transformer_sam": ("samvit_base_patch16_224", {"depth": 4, "embed_dim": 192, "num_heads": 3}),
    "vitamin": ("vitamin_small_224", {}),
    "volo": ("volo_d1_224", {}),
    "vovnet": ("ese_vovnet19b_slim_dw", {}),
    "xception": ("legacy_xception", {}),
    "xception_aligned": ("xception41p", {}),
    "xcit": ("xcit_nano_12_p16_224", {}),
}
"""Module -> (network, options). Of a module that is new in timm, the network with the fewest parameters is taken."""


SIZES: dict[str, int] = {"sebotnet33ts_256": 256, "vgg11": 112}
"""Sides of images for networks that take neither 224 nor the size that timm says."""


def families() -> dict[str, Builder]:
    modules = {f"timm-{module}": partial(_build, module) for module in sorted(_registry._module_to_models)}
    return modules


def _build(module: str) -> Built:
    network, options = MEMBERS.get(module) or (_smallest(module), {})
    model = timm.create_model(network, pretrained=False, num_classes=10, **options)
    config = model.pretrained_cfg
    channels, *size = config["input_size"]
    if not config.get("fixed_input_size"):
        size = [min(side, 224) for side in size]
    if network in SIZES:
        size = [SIZES[network]] * 2
    return Built(network, model, noise(channels, *size), model)


def _smallest(module: str) -> str:
    def parameters(network: str) -> int:
        with torch.device("meta"):
            return sum(parameter.numel() for parameter in timm.create_model(network, pretrained=False).parameters())

    return min(sorted(_registry._module_to_models[module]), key=parameters)
