fn main() {
    use kube::CustomResourceExt;
    print!("{}", serde_yaml::to_string(&crds::CacheTier::crd()).unwrap());
}
