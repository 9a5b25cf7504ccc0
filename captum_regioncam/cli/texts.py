"""The texts of the command line's help."""

DEMO = """Run EfficientNet-Lite0 with its ImageNet weights on scikit-image's cat and draw the photo beside its
Grad-CAM, LayerCAM and Region-CAM, which is refined with the photo, and what each of them cuts out. Needs the extra
"demo", but no internet connection."""
AFTER_DEMO = [
    "Next:",
    "  captum-regioncam explain PHOTO.jpg --overlay    explain photos of your own",
    "  captum-regioncam app                            the same in a browser; needs the extra app",
    "  https://captum-regioncam.readthedocs.io         Python, your own networks, seeds and masks",
]
EXPLAIN = """For every image, write a picture of the photo and its class activation maps. An image that fails does not
stop the others; it is reported at the end, with exit status 1."""
EXPLAIN_EXAMPLES = """  captum-regioncam explain cat.jpg
  captum-regioncam explain photos/*.jpg --target tabby 207 --method grad-cam,region-cam --output maps --save-npy
  captum-regioncam explain cat.jpg --model torchvision:resnet50 --layers relu,layer1,layer2,layer3,layer4"""
APP = """Serve a page, on this computer alone, to try the methods on your own photos: drop a photo, choose classes and
methods, and cut the maps into masks and boxes. Needs the extra "app", but no internet connection."""
APP_EXAMPLES = """  captum-regioncam app
  captum-regioncam app --model torchvision:resnet50 --port 8000"""
LAYERS = """List the layers whose outputs are on a grid, with their shapes for one photo of the network's size. Those
marked with * are the chosen ones: those of --layers, or else the stages found."""
LAYERS_EXAMPLES = """  captum-regioncam layers --model torchvision:resnet50
  captum-regioncam layers --model timm:vit_tiny_patch16_224 --weights none --all"""
CLASSES = """List the numbers and names of a network's classes, which --target takes."""
CLASSES_EXAMPLES = """  captum-regioncam classes cat
  captum-regioncam classes --model torchvision:resnet50 dog"""
SEEDS = """For every photo, write a seed, NAME.npy: the maps of its labelled classes, added over scales and flips.
For photos with boxes, these are score maps that wsolevaluation reads.
A photo that fails does not stop the others. Under torchrun, processes share the photos."""
SEEDS_EXAMPLES = """  captum-regioncam seeds voc --root VOCdevkit/VOC2012 --model examples/irn_resnet50.py:network \\
      --weights res50_cam.pth --output seeds
  captum-regioncam seeds ilsvrc --root ILSVRC --model torchvision:vgg16 --output scoremaps
  torchrun --nproc-per-node 4 -m captum_regioncam seeds voc --root VOCdevkit/VOC2012 ... --output seeds --resume
  captum-regioncam seeds voc --help      the options and defaults of voc"""
LABEL_MAPS = """Write label maps from finished seeds, with VOC's palette: each pixel's best class, or the background
where no map is above the threshold. No network is run. Under torchrun, processes share the photos."""
LABEL_MAPS_EXAMPLES = """  captum-regioncam label-maps seeds --output labels --threshold 0.3
  captum-regioncam label-maps seeds --output labels --threshold best --overlay overlays
  captum-regioncam label-maps seeds --output labels --refine --threshold 0.3
  captum-regioncam label-maps seeds --output ir_label --crf irn --confident best
  captum-regioncam label-maps seeds --output clip_es --crf clip-es --confident 0.95
  captum-regioncam label-maps seeds --output crf --crf psa --alpha 4,24"""
EVALUATE = """Score methods, finished seeds or label maps side by side: mIoU of label maps (voc, coco, folder), boxes
(ilsvrc, cub) or PxAP (openimages). Under torchrun, processes share the photos."""
EVALUATE_EXAMPLES = """  captum-regioncam evaluate voc --root VOCdevkit/VOC2012 --seeds seeds --plot miou.png
  captum-regioncam evaluate voc --root VOCdevkit/VOC2012 --seeds ours theirs --per-class --latex scores.tex
  captum-regioncam evaluate voc --root VOCdevkit/VOC2012 --seeds ours --per-photo photos.csv --gallery gallery
  captum-regioncam evaluate voc --root VOCdevkit/VOC2012 --label-maps labels --json out.json
  captum-regioncam evaluate ilsvrc --root ILSVRC --model torchvision:vgg16 --method region-cam,layer-cam
  captum-regioncam evaluate folder --root photos --method region-cam,grad-cam --resize crop --json out.json
  captum-regioncam evaluate voc --help   the options and defaults of voc"""
