"""Instance segmentation: detectors on the backbones."""
